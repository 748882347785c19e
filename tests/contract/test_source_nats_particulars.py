"""What is true of the NATS source alone, on a real server."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.errors import ConfigError, NotConnected
from relay.models import Received
from relay.sources import Source, source_class
from relay.sources.nats import NatsSource
from tests.contract.nats_harness import ConfiguredNats
from tests.contract.nats_source_harness import NatsSourceHarness
from tests.contract.source_harness import Sent
from tests.contract.source_steps import Inbox, messages, numbers, opened, receive, store, take
from tests.services.nats import NatsServer
from tests.waiting import wait_until


@pytest.fixture
def harness(nats_server: NatsServer) -> NatsSourceHarness:
    return NatsSourceHarness(nats_server)


def killed(source: Source) -> None:
    """The connection ends as that of a killed worker does: without a word."""
    assert isinstance(source, NatsSource)
    receiver, source._receiver = source._receiver, None
    assert receiver is not None
    receiver._held.clear()
    receiver.close()


class TestWhatItHandsOut:
    def test_the_id_is_the_one_that_the_producer_gave(self, harness: NatsSourceHarness) -> None:
        harness.send([Sent(b"1", None, {"Nats-Msg-Id": "orders:7"})])
        with opened(harness) as source:
            (received,) = take(source, 1)
        assert (received.id, received.subject) == ("orders:7", harness.subject)

    def test_without_one_it_is_the_stream_the_sequence_and_the_time(self, harness: NatsSourceHarness) -> None:
        harness.send(messages(1, 2))
        with opened(harness) as source:
            first, second = take(source, 2)
        assert first.id.startswith(f"{harness.stream}/1/")
        assert second.id.startswith(f"{harness.stream}/2/")
        assert first.id.rpartition("/")[2] < second.id.rpartition("/")[2]

    def test_a_stream_made_anew_gives_new_ids_and_is_read_from_its_beginning(self, harness: NatsSourceHarness) -> None:
        inbox = Inbox()
        for _ in range(2):
            harness.send(messages(1, 3))
            with opened(harness, inbox.positions) as source:
                store(source, inbox, take(source, 3))
            harness.nats.delete_stream()
            harness.nats.make_stream(subjects=[f"{harness.stream}.>"])
        assert (len(inbox.rows), inbox.repeats) == (6, 0)

    def test_only_the_subjects_asked_for_come(self, harness: NatsSourceHarness) -> None:
        harness.send(messages(1, 2))
        with opened(harness, subject=f"{harness.stream}.other", consumer="other") as source:
            assert receive(source, 10, 0.2) == []
        with opened(harness, subject=f"{harness.stream}.or*", consumer="broken-off") as source:
            assert receive(source, 10, 0.2) == []
        with opened(harness, subject=f"{harness.stream}.*", consumer="all") as source:
            assert numbers(take(source, 2)) == [1, 2]

    def test_a_message_larger_than_all_that_may_be_held_comes_alone(
        self, harness: NatsSourceHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("relay.sources.nats_receiver.MAX_HELD_BYTES", 5_000)
        harness.send(messages(1, 2) + messages(3, 1, padding=20_000) + messages(4, 2))
        with opened(harness) as source:
            batches = [numbers(receive(source, 100, 1)) for _ in range(3)]
        assert batches == [[1, 2], [3], [4, 5]]


class TestWhereItBegins:
    @pytest.mark.parametrize(
        ("keys", "expected"),
        [
            ({}, [1, 2, 3, 4]),
            ({"deliver_policy": "new"}, [4]),
            ({"deliver_policy": "last"}, [3, 4]),
            ({"deliver_policy": "by_start_sequence", "start_sequence": 2}, [2, 3, 4]),
        ],
    )
    def test_a_new_consumer_begins_as_configured(
        self, harness: NatsSourceHarness, keys: dict[str, Any], expected: list[int]
    ) -> None:
        harness.send(messages(1, 3))
        with opened(harness, **keys) as source:
            harness.send(messages(4, 1))
            assert numbers(take(source, len(expected))) == expected

    def test_a_lost_consumer_is_made_anew_where_it_stood(
        self, harness: NatsSourceHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        harness.send(messages(1, 20))
        inbox = Inbox()
        with opened(harness) as source:
            store(source, inbox, take(source, 10))
        harness.lose_consumer()
        with caplog.at_level(logging.WARNING), opened(harness, inbox.positions, deliver_policy="new") as source:
            assert numbers(take(source, 10)) == list(range(11, 21))
        assert "the consumer was lost" in caplog.text

    def test_a_consumer_that_is_lost_in_mid_flow_is_said_so_and_made_anew(self, harness: NatsSourceHarness) -> None:
        harness.send(messages(1, 20))
        inbox = Inbox()
        with opened(harness) as source:
            store(source, inbox, take(source, 10))
            harness.lose_consumer()
            with pytest.raises(NotConnected, match="consumer") as caught:
                receive(source, 10, 0.5)
            assert caught.value.code == "no_consumer"
            source.open(inbox.positions)
            store(source, inbox, take(source, 10))
        assert (inbox.numbers(), inbox.repeats) == (list(range(1, 21)), 0)

    def test_no_position_passes_what_may_come_again(self, harness: NatsSourceHarness) -> None:
        """Else a consumer made anew would begin behind messages that were never written."""
        harness.send(messages(1, 40))
        inbox = Inbox()
        with opened(harness) as source:
            store(source, inbox, take(source, 10))
            take(source, 10)
            killed(source)
        # The next worker is given 11 to 20 again, writes a part of them, and everything is lost but PostgreSQL.
        with opened(harness, inbox.positions) as source:
            received = take(source, 5)
            assert numbers(received) == [11, 12, 13, 14, 15]
            inbox.write(received)
            killed(source)
        harness.lose_consumer()
        with opened(harness, inbox.positions) as source:
            assert set(numbers(take(source, 30))) == set(range(11, 41))

    def test_a_position_after_a_rest_does_not_pass_what_was_given_back(self, harness: NatsSourceHarness) -> None:
        harness.send(messages(1, 30))
        with opened(harness) as source:
            source.ack(take(source, 10))
            take(source, 10)
            source.rest()
            assert {_floor(message) for message in take(source, 20)} == {10}
            source.rest()
            source.ack(take(source, 20))
            source.rest()
            harness.send(messages(31, 1))
            assert [_floor(message) for message in take(source, 1)] == [31]

    def test_a_work_queue_may_be_read(self, nats_server: NatsServer) -> None:
        harness = NatsSourceHarness(nats_server, retention="workqueue")
        harness.send(messages(1, 10))
        inbox = Inbox()
        with opened(harness) as source:
            store(source, inbox, take(source, 5))
        harness.lose_consumer()
        with opened(harness, inbox.positions) as source:
            store(source, inbox, take(source, 5))
        assert (inbox.numbers(), inbox.repeats) == (list(range(1, 11)), 0)


class TestAfterAKill:
    def test_the_next_worker_receives_everything_at_once_and_in_order(self, harness: NatsSourceHarness) -> None:
        harness.send(messages(1, 3000))
        inbox = Inbox()
        with opened(harness) as source:
            store(source, inbox, take(source, 500))
            take(source, 1000)
            killed(source)
        assert harness.consumer_info()["num_ack_pending"] == 1000
        with opened(harness, inbox.positions) as source:
            # ack_wait is a minute here, and a test has not so much patience.
            assert numbers(take(source, 2500)) == list(range(501, 3001))

    def test_an_acknowledgement_that_did_not_arrive_costs_repeats_only(self, harness: NatsSourceHarness) -> None:
        harness.send(messages(1, 10))
        inbox = Inbox()
        with opened(harness) as source:
            first, second = take(source, 4), take(source, 4)
            inbox.write([*first, *second])
            source.ack(second)
            killed(source)
        with opened(harness, inbox.positions) as source:
            again = take(source, 6)
            assert numbers(again) == [1, 2, 3, 4, 9, 10]
            store(source, inbox, again)
        assert inbox.repeats == 4
        wait_until(lambda: harness.consumer_info()["num_ack_pending"] == 0)


class TestTheConsumer:
    def test_is_made_as_configured(self, harness: NatsSourceHarness) -> None:
        with opened(harness, ack_wait_ms=7_000, max_ack_pending=77):
            pass
        made = harness.consumer_info()["config"]
        assert made["ack_wait"] == 7_000_000_000
        assert {key: made.get(key) for key in ("ack_policy", "max_ack_pending", "max_deliver", "durable_name")} == {
            "ack_policy": "explicit",
            "max_ack_pending": 77,
            "max_deliver": -1,
            "durable_name": "tide-contract",
        }

    def test_that_is_missing_is_a_matter_of_configuration_where_it_may_not_be_made(
        self, harness: NatsSourceHarness
    ) -> None:
        source = harness.make_source(create_consumer=False)
        with pytest.raises(ConfigError, match=r"nats consumer add .* or set create_consumer"):
            source.open({})
        harness.make_consumer()
        source.open({})
        source.close()

    @pytest.mark.parametrize(
        ("found", "complaint"),
        [
            ({"max_deliver": 3}, "gives a message up after 3 deliveries"),
            ({"ack_policy": "none"}, "ack_policy is 'none'"),
            ({"ack_policy": "all"}, "ack_policy is 'all'"),
            ({"deliver_subject": "somewhere"}, "push consumer"),
            ({"filter_subject": "{stream}.else"}, "selects .*else and not"),
        ],
    )
    def test_that_would_lose_messages_is_refused(
        self, harness: NatsSourceHarness, found: dict[str, Any], complaint: str
    ) -> None:
        harness.make_consumer(**{key: _filled(value, harness.stream) for key, value in found.items()})
        with pytest.raises(ConfigError, match=complaint):
            harness.make_source(subject=f"{harness.stream}.orders").open({})

    def test_whose_requests_are_limited_is_asked_for_no_more(self, harness: NatsSourceHarness) -> None:
        harness.make_consumer(max_batch=3, max_bytes=100_000, max_expires=50_000_000)
        harness.send(messages(1, 10))
        with opened(harness) as source:
            assert numbers(take(source, 10)) == list(range(1, 11))
            assert receive(source, 10, 0.2) == []

    def test_that_is_full_goes_on_when_something_is_acknowledged(self, harness: NatsSourceHarness) -> None:
        harness.send(messages(1, 30))
        with opened(harness, max_ack_pending=10) as source:
            first = take(source, 10)
            assert receive(source, 10, 0.2) == []
            source.ack(first)
            assert numbers(take(source, 10)) == list(range(11, 21))


def test_what_the_server_sends_again_while_it_is_held_is_not_handed_out_twice(harness: NatsSourceHarness) -> None:
    harness.send(messages(1, 5))
    with opened(harness, ack_wait_ms=1_000) as source:
        held = take(source, 5)
        again: list[Received] = []

        def came_again() -> bool:
            again.extend(receive(source, 10, 0.2))
            return bool(harness.consumer_info()["num_redelivered"] == 5)

        wait_until(came_again)
        source.ack(held)
        assert again + receive(source, 10, 0.2) == []
    wait_until(lambda: harness.consumer_info()["num_ack_pending"] == 0)


def test_an_idle_source_costs_one_request_for_each_wait(harness: NatsSourceHarness) -> None:
    with opened(harness) as source:
        receive(source, 10, 0.05)
        assert isinstance(source, NatsSource)
        receiver = source._receiver
        assert receiver is not None
        before = receiver._client.stats["out_msgs"]
        for _ in range(5):
            receive(source, 10, 0.05)
            source.rest()
        assert receiver._client.stats["out_msgs"] - before == 5


def test_a_header_of_status_is_no_status(harness: NatsSourceHarness) -> None:
    harness.send([Sent(b'{"n": 1}', None, {"Status": "409", "Description": "Consumer Deleted"})])
    with opened(harness) as source:
        (received,) = take(source, 1)
    assert received.headers["Status"] == "409"


def test_the_permissions_of_the_page_suffice(own_dirs: Callable[[], Path]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sources" / "nats.md").read_text()
    (sentence,) = re.findall(r"A user with limited permissions may publish to (.*?), and subscribe", page, re.DOTALL)
    server = ConfiguredNats(own_dirs())
    with server:
        stream = NatsSourceHarness(server).stream
        allowed = [subject.replace("commands", stream) for subject in re.findall("`(.*?)`", sentence)]
        permissions = {"publish": {"allow": allowed}, "subscribe": "_INBOX.>"}
        users = [
            {"user": "tide", "password": server.password},
            {"user": "limited", "password": "p", "permissions": permissions},
        ]
        server.stop()
        server._extra = {"authorization": {"users": users}}
        server.start()
        harness = NatsSourceHarness(server, stream)
        harness.send(messages(1, 3))
        url = server.url.replace(f"tide:{server.password}", "limited:p")
        with opened(harness, url=url) as source:
            received = take(source, 3)
            source.ack(received[:1])
            source.rest()
            assert numbers(take(source, 2)) == [2, 3]


def test_the_source_is_the_one_of_the_table() -> None:
    assert source_class("nats") is NatsSource


def _floor(message: Received) -> int:
    return int(message.position.partition("@")[0])


def _filled(value: Any, stream: str) -> Any:
    return value.replace("{stream}", stream) if isinstance(value, str) else value
