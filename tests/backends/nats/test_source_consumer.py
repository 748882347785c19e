"""The consumer of a NATS source: where it begins, when it is lost, which ones are refused."""

import logging
from typing import Any

import pytest

from relay.errors import ConfigError, NotConnected
from relay.models import Received
from tests.backends.nats.source_harness import NatsSourceHarness, killed
from tests.backends.source_steps import Inbox, messages, numbers, opened, receive, store, take
from tests.backends.steps import Limits, within
from tests.services.nats import NatsServer


@pytest.fixture
def harness(nats_server: NatsServer) -> NatsSourceHarness:
    return NatsSourceHarness(nats_server)


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

    def test_one_that_is_lost_before_anything_came_begins_where_it_began(self, harness: NatsSourceHarness) -> None:
        harness.send(messages(1, 3))
        with opened(harness, deliver_policy="new") as source:
            begun = dict(source.begun)
        harness.lose_consumer()
        harness.send(messages(4, 2))
        with opened(harness, begun, deliver_policy="new") as source:
            assert not source.begun
            assert numbers(take(source, 2)) == [4, 5]

    @pytest.mark.parametrize("received", [0, 2])
    def test_of_a_stream_that_was_recreated_everything_is_read(
        self, harness: NatsSourceHarness, received: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        inbox = Inbox()
        with opened(harness, deliver_policy="new") as source:
            positions = dict(source.begun)
            harness.send(messages(1, received))
            store(source, inbox, take(source, received))
        positions |= inbox.positions
        harness.recreate_stream()
        harness.send(messages(1, 5))
        with caplog.at_level(logging.WARNING), opened(harness, positions, deliver_policy="new") as source:
            store(source, inbox, take(source, 5))
        assert "the stream was recreated" in caplog.text
        assert inbox.numbers() == [*range(1, received + 1), 1, 2, 3, 4, 5], "they are others, by their times"

    def test_a_consumer_that_someone_recreated_with_its_stream_is_said_so(
        self, harness: NatsSourceHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        harness.send(messages(1, 1))
        inbox = Inbox()
        with opened(harness) as source:
            store(source, inbox, take(source, 1))
        harness.recreate_stream()
        harness.make_consumer(deliver_policy="new")
        with caplog.at_level(logging.WARNING), opened(harness, inbox.positions):
            pass
        assert "recreated, and its consumer too" in caplog.text

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
        """Otherwise a recreated consumer would begin behind messages that were never written."""
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
            source.release()
            assert {_floor(message) for message in take(source, 20)} == {10}
            source.release()
            source.ack(take(source, 20))
            source.release()
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

    def test_that_is_nearly_full_gives_what_it_may_at_once(self, harness: NatsSourceHarness) -> None:
        harness.send(messages(1, 30))
        with opened(harness, max_ack_pending=10, timeout_ms=60_000) as source:
            take(source, 6)
            assert numbers(within(Limits.moment_seconds, lambda: receive(source, 10, 30))) == [7, 8, 9, 10]
            assert within(Limits.moment_seconds, lambda: receive(source, 10, 0)) == []

    def test_that_is_full_goes_on_when_something_is_acknowledged(self, harness: NatsSourceHarness) -> None:
        harness.send(messages(1, 30))
        with opened(harness, max_ack_pending=10) as source:
            first = take(source, 10)
            assert receive(source, 10, 0.2) == []
            source.ack(first)
            assert numbers(take(source, 10)) == list(range(11, 21))


def _floor(message: Received) -> int:
    return int(message.position.partition("@")[0])


def _filled(value: Any, stream: str) -> Any:
    return value.replace("{stream}", stream) if isinstance(value, str) else value
