"""What the RabbitMQ sink puts on the wire, read by py-amqp, and what it makes of the answers."""

from collections.abc import Iterator
from typing import Any

import amqp  # type: ignore[import-untyped]
import pytest
from amqp.method_framing import frame_handler  # type: ignore[import-untyped]
from amqp.serialization import loads  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from relay.backends.rabbitmq.confirms import DELIVERED, Confirms
from relay.backends.rabbitmq.frames import Encoder, Unsendable
from relay.models import Record

FRAME_MAX = 4096
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def encoder(**options: Any) -> Encoder:
    given_: dict[str, Any] = {
        "channel": 3,
        "frame_max": FRAME_MAX,
        "mandatory": True,
        "persistent": True,
        "headers": {},
    } | options
    return Encoder("orders", **given_)


def cut(frames: bytes) -> Iterator[tuple[int, int, bytes]]:
    while frames:
        kind, channel, size = frames[0], int.from_bytes(frames[1:3], "big"), int.from_bytes(frames[3:7], "big")
        assert size + 8 <= FRAME_MAX
        assert frames[7 + size] == 0xCE
        yield kind, channel, frames[7 : 7 + size]
        frames = frames[8 + size :]


def read(frames: bytes) -> tuple[list[Any], amqp.Message]:
    """(arguments of basic.publish, message) as py-amqp understands them."""

    class Counting:
        bytes_recv = 0

    (_, channel, method), *rest = cut(frames)
    assert (channel, method[:4]) == (3, b"\x00\x3c\x00\x28")
    arguments, _ = loads("Bssbb", method, 4)
    came: list[amqp.Message] = []
    on_frame = frame_handler(Counting(), lambda _c, _s, _a, message: came.append(message))
    # The start of a delivery, which is what py-amqp expects before a header.
    on_frame((1, 3, b"\x00\x3c\x00\x3c"))
    for frame in rest:
        on_frame(frame)
    (message,) = came
    return arguments, message


class TestFrames:
    @given(st.binary(max_size=10_000), TEXT, TEXT, st.dictionaries(TEXT, TEXT, max_size=5), st.none() | TEXT)
    def test_say_what_the_record_says(
        self, body: bytes, subject: str, dedup_id: str, headers: dict[str, str], key: str | None
    ) -> None:
        record = Record(1, dedup_id, subject, key, body, headers)
        arguments, message = read(encoder().frames(record, 7))
        assert arguments == [0, "orders", subject, True, False]
        assert (message.body or b"") == body
        expected = {name: value for name, value in headers.items() if name not in {"CC", "BCC", "content-type"}}
        assert message.properties == {
            "content_type": headers.get("content-type", "application/json"),
            "application_headers": expected if key is None else expected | {"relay-key": key},
            "delivery_mode": 2,
            "message_id": dedup_id,
            "timestamp": 7,
            "app_id": "tide-relay",
        }

    @pytest.mark.parametrize("size", [0, 1, FRAME_MAX - 8, FRAME_MAX - 7, 3 * (FRAME_MAX - 8)])
    def test_divide_bodies_as_the_server_takes_them(self, size: int) -> None:
        _, message = read(encoder().frames(Record(1, "o:1", "a", None, b"x" * size, {}), 7))
        assert len(message.body or b"") == size

    def test_carry_the_fixed_headers_under_the_messages_own(self) -> None:
        fixed = {"a": 1, "b": True, "c": 1.5, "d": "text", "e": -(2**63)}
        made = encoder(headers=fixed, mandatory=False, persistent=False)
        arguments, message = read(made.frames(Record(1, "o:1", "a", None, b"", {"a": "own"}), 7))
        assert message.properties["application_headers"] == fixed | {"a": "own"}
        assert (message.properties["delivery_mode"], arguments[3]) == (1, False)

    @pytest.mark.parametrize(
        ("record", "code"),
        [
            (Record(1, "o:1", "ä" * 128, None, b"", {}), "bad_routing_key"),
            (Record(1, "o:1", "\ud800", None, b"", {}), "bad_routing_key"),
            (Record(1, "o" * 256, "a", None, b"", {}), "bad_header"),
            (Record(1, "o:1", "a", None, b"", {"\ud800": "a"}), "bad_header"),
            (Record(1, "o:1", "a", None, b"", {"a": "\ud800"}), "bad_header"),
            (Record(1, "o:1", "a", None, b"", {"a": "x" * FRAME_MAX}), "too_large"),
        ],
    )
    def test_cannot_be_made_of_everything(self, record: Record, code: str) -> None:
        with pytest.raises(Unsendable) as caught:
            encoder().frames(record, 7)
        assert caught.value.code == code


class TestConfirms:
    @pytest.fixture
    def confirms(self) -> Confirms:
        made = Confirms()
        for name in "abcd":
            made.sent(name)
        return made

    def test_one_answer_may_settle_many(self, confirms: Confirms) -> None:
        confirms.on_ack(3, True)
        assert confirms.outcomes == dict.fromkeys("abc", DELIVERED)
        assert confirms.waits_for({"a", "d"})
        assert not confirms.waits_for({"a", "b"})
        confirms.on_ack(4, True)
        assert not confirms.waits_for({"d"})

    def test_zero_means_all(self, confirms: Confirms) -> None:
        confirms.on_ack(0, True)
        assert confirms.outcomes == dict.fromkeys("abcd", DELIVERED)

    def test_answers_come_in_any_order(self, confirms: Confirms) -> None:
        confirms.on_ack(3, False)
        confirms.on_nack(1, False)
        assert {name: outcome.code for name, outcome in confirms.outcomes.items()} == {"a": "nacked", "c": ""}
        confirms.on_ack(4, True)
        assert {name: outcome.code for name, outcome in confirms.outcomes.items()} == {
            "a": "nacked", "b": "", "c": "", "d": "",
        }  # fmt: skip

    def test_what_was_returned_is_refused_though_it_is_acknowledged(self, confirms: Confirms) -> None:
        confirms.on_return("b", "no queue")
        confirms.on_ack(4, True)
        outcome = confirms.outcomes["b"]
        assert (outcome.code, outcome.permanent, outcome.reason) == ("unroutable", True, "no queue")
        assert confirms.outcomes["c"] == DELIVERED

    def test_an_answer_to_nothing_is_nothing(self, confirms: Confirms) -> None:
        confirms.on_ack(9, False)
        assert confirms.outcomes == {}

    def test_only_what_is_worth_another_try_may_be_sent_again(self, confirms: Confirms) -> None:
        confirms.on_ack(1, False)
        confirms.on_nack(2, False)
        confirms.on_return("c", "no queue")
        confirms.on_ack(3, False)
        for name in "abc":
            assert confirms.take(name) is not None
        assert [confirms.knows(name) for name in "abcd"] == [True, False, True, True]
        confirms.keep_only(["c", "d"])
        assert [confirms.knows(name) for name in "abcd"] == [False, False, True, True]
