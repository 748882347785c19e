"""What becomes of a message that a source received; CloudEvents and Debezium are in files of their own."""

import json
from typing import Any

import pytest

from relay.errors import ConfigError
from relay.models import Failure, InboxRow, Message, Received
from relay.wire.decode import CODES, EVENT_VARIABLES, FORMATS, LONGEST_EVENT_ID, Decoder
from relay.wire.encode import FORMATS as FORWARD_FORMATS
from relay.wire.encode import Wire
from tests.nesting import DEPTH, TOO_DEEP

NOON = "2025-03-01T12:00:00.000005Z"
TRACE = "0af7651916cd43dd8448eb211c80319c"
AWKWARD: list[bytes] = [
    b"{}",
    b"null",
    b"[ ]",
    b'"a \\"quoted\\" text"',
    b'"{not json"',
    b'{"n": 12345678901234567890123, "f": 0.1000000000000000055511151231257827, "g": 1.10, "h": 1e400}',
    b'{"n": ' + b"7" * 6000 + b"}",
    '{"text": "ümlaut 😀 \\\\u0000 and a tab\\t", "b": 1,  "a": 2}'.encode(),
    b'{"a": ' * DEPTH + b"1" + b"}" * DEPTH,
    b'{"big": "' + b"x" * 1_000_000 + b'"}',
    b'{"payload": 1, "schema": 2, "id": 3}',
]


def received(body: bytes = b'{"n": 1}', headers: dict[str, str] | None = None, **fields: Any) -> Received:
    return Received("orders/3/1042", body, headers or {}, **({"key": "k", "subject": "orders"} | fields))


def row(message: Received, **keys: Any) -> InboxRow:
    made = Decoder("from-kafka", max_message_bytes=2_000_000, **keys).decode(message)
    assert isinstance(made, InboxRow), made
    return made


def refusal(message: Received, **keys: Any) -> Failure:
    failure = Decoder("from-kafka", **keys).decode(message)
    assert isinstance(failure, Failure), failure
    assert failure.permanent
    assert failure.code in CODES
    return failure


class TestRaw:
    def test_the_body_is_the_payload_and_the_sources_id_the_event_id(self) -> None:
        assert row(received()) == InboxRow("orders/3/1042", None, "orders", "k", None, '{"n": 1}', "{}", None)

    @pytest.mark.parametrize("payload", AWKWARD, ids=lambda payload: payload[:16].decode())
    def test_the_text_is_not_touched(self, payload: bytes) -> None:
        assert row(received(payload)).payload == payload.decode()

    def test_whether_it_is_json_is_for_postgresql_to_say(self) -> None:
        assert row(received(b"hello")).payload == "hello"

    def test_an_empty_body_is_null(self) -> None:
        assert row(received(b"")).payload == "null"

    def test_the_header_type_is_the_type(self) -> None:
        assert row(received(headers={"type": "paid"})).event_type == "paid"

    def test_headers_are_json_with_text_as_it_is(self) -> None:
        made = row(received(headers={"a": "ü 😀", 'q"': '"'}))
        assert json.loads(made.headers) == {"a": "ü 😀", 'q"': '"'}

    def test_headers_that_postgresql_cannot_keep_are_mended(self) -> None:
        made = row(received(headers={"nul": "a\0b", "half": "a\ud800b", "written": "\\u0000"}))
        assert json.loads(made.headers) == {"nul": "a\ufffdb", "half": "a?b", "written": "\\u0000"}

    def test_nothing_is_something_too(self) -> None:
        made = row(received(key=None, subject=""))
        assert (made.aggregate_id, made.source) == (None, None)


class TestRefusals:
    def test_a_body_above_the_limit(self) -> None:
        failure = refusal(received(b"12345"), max_message_bytes=4)
        assert (failure.code, failure.reason) == ("too_large", "the body has 5 bytes, max_message_bytes is 4")
        assert isinstance(Decoder("p", max_message_bytes=5).decode(received(b"12345")), InboxRow)

    def test_a_body_that_is_not_utf8(self) -> None:
        failure = refusal(received(b'"a\xff"'))
        assert (failure.code, failure.reason) == ("not_utf8", "byte 3 of the body is not UTF-8")

    @pytest.mark.parametrize(
        ("event_id", "reason"),
        [
            ("", "empty or missing"),
            ("x" * (LONGEST_EVENT_ID + 1), "501 characters; at most 500"),
            ("a\0b", "NUL"),
        ],
    )
    def test_an_event_id_that_cannot_be_stored(self, event_id: str, reason: str) -> None:
        failure = refusal(Received(event_id, b"{}", {}))
        assert failure.code == "bad_event_id"
        assert reason in failure.reason

    def test_the_longest_event_id_is_fine(self) -> None:
        assert row(Received("x" * LONGEST_EVENT_ID, b"{}", {})).event_id == "x" * LONGEST_EVENT_ID


class TestTemplates:
    @pytest.mark.parametrize(
        ("template", "expected"),
        [
            ("{id}", "orders/3/1042"),
            ("{key}", "k"),
            ("{subject}", "orders"),
            ("{source}", "orders"),
            ("{type}", "paid"),
            ("{pipeline}:{id}", "from-kafka:orders/3/1042"),
            ("{header.X-Id}", "h"),
            ("{header.x-id}", "h"),
            ("{headers[X-ID]}", "h"),
            ("{header.none}-{key}", "-k"),
            ("{{{key}}}", "{k}"),
            ("fixed", "fixed"),
        ],
    )
    def test_variables_are_filled_in(self, template: str, expected: str) -> None:
        message = received(headers={"X-Id": "h", "type": "paid"})
        made = row(message, event_id=template, event_type=template, aggregate_id=template)
        assert (made.event_id, made.event_type, made.aggregate_id) == (expected, expected, expected)

    def test_what_is_empty_is_no_event_id_and_no_type(self) -> None:
        assert refusal(received(), event_id="{header.none}").code == "bad_event_id"
        made = row(received(), event_type="{header.none}", aggregate_id="{header.none}")
        assert (made.event_type, made.aggregate_id) == (None, None)

    @pytest.mark.parametrize("key", ["event_id", "event_type", "aggregate_id"])
    def test_a_wrong_one_names_its_key_and_the_known_variables(self, key: str) -> None:
        with pytest.raises(ConfigError, match=f"{key} .* unknown variable {{colour}}") as caught:
            Decoder("p", **{key: "{colour}"})  # type: ignore[arg-type]
        assert all(f"{{{name}}}" in str(caught.value) for name in EVENT_VARIABLES)


class TestPaths:
    PAYLOAD = (
        b'{"order": {"id": "o-1", "n": 12345678901234567890123, "f": 1.10, "yes": true, "no": false, "none": null,'
        b' "": "e", "empty": ""}, "lines": [{"sku": "a"}, ["b"]], "odd name": 1, "a": "text"}'
    )

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("$.order.id", "o-1"),
            ("$.order.n", "12345678901234567890123"),
            ("$.order.f", "1.10"),
            ("$.order.yes", "true"),
            ("$.order.no", "false"),
            ("$.lines[0].sku", "a"),
            ("$.lines[1][0]", "b"),
            ('$["odd name"]', "1"),
            ('$.order["id"]', "o-1"),
        ],
    )
    def test_they_find_text_numbers_and_truth_values(self, path: str, expected: str) -> None:
        made = row(received(self.PAYLOAD), event_id=path, event_type=path, aggregate_id=path)
        assert (made.event_id, made.event_type, made.aggregate_id) == (expected, expected, expected)

    @pytest.mark.parametrize(
        "path",
        ["$.none", "$.order", "$.lines", "$.order.none", "$.order.empty", "$.lines[2]", "$.lines.sku", "$.order[0]",
         "$.a[0]", "$.a.b", "$.order.id.x"],
    )  # fmt: skip
    def test_what_they_do_not_find_is_no_event_id(self, path: str) -> None:
        assert refusal(received(self.PAYLOAD), event_id=path).code == "bad_event_id"
        made = row(received(self.PAYLOAD), event_type=path, aggregate_id=path)
        assert (made.event_type, made.aggregate_id) == (None, None)

    @pytest.mark.parametrize("body", [b"{", b"hello", b"", b"{} {}", TOO_DEEP.encode()], ids=range(5))
    def test_they_need_a_payload_that_can_be_parsed(self, body: bytes) -> None:
        expected = "bad_event_id" if body == b"" else "not_json"
        assert refusal(received(body), event_id="$.id").code == expected

    def test_the_payload_itself_stays_as_it_came(self) -> None:
        assert row(received(self.PAYLOAD), event_id="$.order.id").payload == self.PAYLOAD.decode()

    def test_they_read_the_payload_inside_an_envelope(self) -> None:
        body = b'{"version": 1, "id": "orders:1", "payload": {"id": 7}}'
        assert row(received(body), wire_format="envelope", event_id="$.id").event_id == "7"

    @pytest.mark.parametrize("path", ["$.", "$.a.", "$.a[x]", "$.a[-1]", "$[", "$.a[0", "$..a", "$.a b]"])
    def test_a_wrong_one_names_its_key(self, path: str) -> None:
        with pytest.raises(ConfigError, match=r"aggregate_id .* is not a path such as"):
            Decoder("p", aggregate_id=path)


class TestTraces:
    @pytest.mark.parametrize("wire_format", ["raw", "debezium"])
    def test_the_trace_id_comes_from_traceparent(self, wire_format: str) -> None:
        headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "id": "1"}
        assert row(received(headers=headers), wire_format=wire_format).trace_id == TRACE

    @pytest.mark.parametrize(
        "value",
        ["", "x", f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-{TRACE}", f"00-{TRACE.upper()}-b7ad6b7169203331-01"],
    )
    def test_one_that_is_not_valid_is_none(self, value: str) -> None:
        assert row(received(headers={"traceparent": value})).trace_id is None


class TestEnvelope:
    def sent(self, payload: bytes, headers: bytes = b"{}", key: str | None = "customer-4") -> Received:
        wire = Wire(outbox="orders", pipeline="p", subject_template="", wire_format="envelope", keeps_headers=False)
        (record,) = wire.records([Message(17, key, payload, headers, NOON)])
        return received(record.body, key=None)

    def test_everything_in_it_comes_back(self) -> None:
        headers = f'{{"type": "paid", "n": 1.10, "traceparent": "00-{TRACE}-b7ad6b7169203331-01"}}'
        made = row(self.sent(b'{"n": 1}', headers.encode()), wire_format="envelope")
        assert made == InboxRow("orders:17", "paid", "orders", "customer-4", 17, '{"n": 1}', headers, TRACE)

    @pytest.mark.parametrize("payload", AWKWARD, ids=lambda payload: payload[:16].decode())
    def test_the_payload_is_not_touched(self, payload: bytes) -> None:
        assert row(self.sent(payload), wire_format="envelope").payload == payload.decode()

    def test_headers_that_python_cannot_parse_are_stored_all_the_same(self) -> None:
        deep = b'{"a": ' + TOO_DEEP.encode() + b"}"
        assert row(self.sent(b"1", deep), wire_format="envelope").headers == deep.decode()

    def test_a_header_of_it_can_be_named(self) -> None:
        made = row(self.sent(b"1", b'{"Tenant": 4}'), wire_format="envelope", event_id="{header.tenant}/{id}")
        assert made.event_id == "4/orders:17"

    @pytest.mark.parametrize(
        ("value", "expected"),
        [(b"1.10", "1.10"), (b"1e-400", "1e-400"), (b'{"a": [1.10, 5]}', '{"a":[1.10,5]}'), (b"true", "true")],
    )
    def test_a_number_in_a_header_keeps_its_text(self, value: bytes, expected: str) -> None:
        made = row(self.sent(b"1", b'{"n": ' + value + b"}"), wire_format="envelope", event_id="{header.n}")
        assert made.event_id == expected

    @pytest.mark.parametrize(
        ("type_", "expected"),
        [(b"7", "7"), (b"1.10", "1.10"), (b"-5", "-5"), (b"null", None), (b'["a"]', None), (b"true", None)],
    )
    def test_a_type_is_text_or_a_number(self, type_: bytes, expected: str | None) -> None:
        assert row(self.sent(b"1", b'{"type": ' + type_ + b"}"), wire_format="envelope").event_type == expected

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (b"", "not a JSON object"),
            (b"[1]", "not a JSON object"),
            (b'{"version":1,', "does not end"),
            (b'{"id":"a:1","payload":1}', "version is missing"),
            (b'{"version":2,"id":"a:1","payload":1}', "version is 2, not 1"),
            (b'{"version":1,"payload":1}', "no id"),
            (b'{"version":1,"id":7,"payload":1}', "no id"),
            (b'{"version":1,"id":"a:1"}', "no payload"),
            (b'{"version":1,"id":"a:1","payload":1,"headers":[]}', "headers of the envelope"),
        ],
    )
    def test_what_is_none_is_refused(self, body: bytes, reason: str) -> None:
        failure = refusal(received(body), wire_format="envelope")
        assert failure.code == "bad_envelope"
        assert reason in failure.reason

    def test_new_members_are_passed_over(self) -> None:
        body = b'{"version":1,"new":{"payload":0},"id":"a:1","payload":1,"message_id":-3}'
        assert row(received(body), wire_format="envelope")[:6] == ("a:1", None, None, None, None, "1")


def test_every_forward_format_can_be_read() -> None:
    assert FORMATS.keys() == FORWARD_FORMATS.keys()


def test_an_unknown_wire_format_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(ConfigError, match=", ".join(FORMATS)):
        Decoder("p", wire_format="xml")
