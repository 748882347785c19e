"""What is true of the RabbitMQ source alone, on a real server."""

import sys
from typing import Any

import amqp  # type: ignore[import-untyped]
import pytest

from relay.backends.rabbitmq.source import RabbitmqSource
from relay.backends.registry import source_class
from relay.errors import NotConnected
from relay.models import Received
from tests.backends.rabbitmq.source_harness import RabbitmqSourceHarness
from tests.backends.source_steps import messages, opened, receive, take, until_it_raises
from tests.backends.steps import Limits, start, within
from tests.services.rabbitmq import RabbitmqServer
from tests.waiting import wait_until


@pytest.fixture
def harness(rabbitmq_server: RabbitmqServer) -> RabbitmqSourceHarness:
    return RabbitmqSourceHarness(rabbitmq_server)


def received(harness: RabbitmqSourceHarness, body: bytes = b"1", **properties: Any) -> Received:
    """A message of these properties, as it comes."""
    harness.send_raw([amqp.Message(body, **properties)])
    with opened(harness) as source:
        (message,) = take(source, 1)
        source.ack([message])
        return message


class TestWhatIsRead:
    def test_the_id_is_the_message_id(self, harness: RabbitmqSourceHarness) -> None:
        message = received(harness, message_id="orders:7")
        assert (message.id, message.subject) == ("orders:7", harness.queue)

    def test_equal_messages_without_an_id_are_two(self, harness: RabbitmqSourceHarness) -> None:
        harness.send_raw([amqp.Message("same"), amqp.Message("same")])
        with opened(harness) as source:
            ids = {message.id for message in take(source, 2)}
        with opened(harness) as source:
            assert len(ids | {message.id for message in take(source, 2)}) == 4

    def test_properties_with_a_headers_name_become_headers(self, harness: RabbitmqSourceHarness) -> None:
        properties: dict[str, Any] = {
            "content_type": "text/plain",
            "content_encoding": "utf-8",
            "correlation_id": "c",
            "reply_to": "r",
            "type": "t",
            "app_id": "a",
        }
        others: dict[str, Any] = {
            "priority": 3,
            "expiration": "60000",
            "timestamp": 1,
            "user_id": "tide",
            "delivery_mode": 1,
        }
        headers = {"type": "not this", "own": "1"}
        message = received(harness, application_headers=headers, **properties, **others)
        assert message.headers == {name.replace("_", "-"): value for name, value in properties.items()} | {"own": "1"}
        assert type(message.body) is bytes

    def test_headers_of_every_type_become_text(self, harness: RabbitmqSourceHarness) -> None:
        values = {"n": 2**40, "yes": True, "none": None, "half": 0.5, "list": ["a", 1], "table": {"ä": b"\xff"}}
        message = received(harness, application_headers=values)
        expected = {"n": "1099511627776", "yes": "true", "none": "null", "half": "0.5", "list": '["a",1]'}
        assert message.headers == expected | {"table": '{"ä":"/w=="}'}

    @pytest.mark.parametrize(
        "properties",
        [
            {"content_type": b"\xff\xfe"},
            {"message_id": b"\xff"},
            {"application_headers": {"a": b"\xff\xfe"}},
            {"application_headers": {b"\xff": "a"}},
        ],
    )
    def test_what_is_no_utf8_does_not_stop_the_queue(
        self, harness: RabbitmqSourceHarness, properties: dict[str, Any]
    ) -> None:
        assert received(harness, b"body", **properties).body == b"body"

    @pytest.mark.parametrize("levels", [50, 400, 1000, 4000])
    def test_headers_nested_however_deeply_do_not_stop_the_queue(
        self, harness: RabbitmqSourceHarness, levels: int
    ) -> None:
        deep: dict[str, Any] = {}
        for _ in range(levels):
            deep = {"t": deep}
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(100_000)  # of the producer
        try:
            harness.send_raw([amqp.Message(b"1"), amqp.Message(b"2", application_headers=deep), amqp.Message(b"3")])
        finally:
            sys.setrecursionlimit(limit)
        with opened(harness) as source:
            arrived = take(source, 3)
            source.ack(arrived)
        assert [(message.body, message.failure) for message in arrived] == [(b"1", None), (b"2", None), (b"3", None)]
        assert harness.broker.count(harness.queue) == 0

    def test_a_message_of_many_frames_arrives_whole(self, harness: RabbitmqSourceHarness) -> None:
        body = bytes(range(256)) * 40_000
        assert received(harness, body).body == body


class TestTheQueue:
    def test_is_made_when_configured_so(self, harness: RabbitmqSourceHarness) -> None:
        for kind in ("classic", "quorum"):
            name = f"{harness.queue}-{kind}"
            with opened(harness, queue=name, declare=True, queue_type=kind):
                # With the same arguments it is no error, with others it is.
                harness.broker.make_queue(name, **{"x-queue-type": kind})

    def test_that_is_deleted_ends_the_receive(self, harness: RabbitmqSourceHarness) -> None:
        with opened(harness) as source:
            receive(source, 10, 0)
            waiting = start(lambda: receive(source, 10, 20))
            harness.broker.ask(lambda channel: channel.queue_delete(harness.queue))
            with pytest.raises(NotConnected) as caught:
                waiting(Limits.moment_seconds)
            assert caught.value.code == "cancelled"
            with pytest.raises(NotConnected):
                receive(source, 10, 0)

    def test_keeps_what_is_beyond_the_prefetch(self, harness: RabbitmqSourceHarness) -> None:
        harness.send(messages(1, 30))
        with opened(harness, prefetch=10) as source:
            first = take(source, 10)
            assert receive(source, 10, 0) == []
            assert harness.broker.count(harness.queue) == 20
            source.ack(first[:4])
            assert len(take(source, 4)) == 4

    def test_is_read_no_further_than_the_memory_allows(
        self, harness: RabbitmqSourceHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("relay.backends.rabbitmq.consumer._BATCH_BYTES", 1000)
        harness.send(messages(1, 100, padding=600))
        with opened(harness) as source:
            sizes = [len(receive(source, 50, 1)) for _ in range(20)]
        assert max(sizes) == 2

    def test_has_no_consumer_and_all_messages_after_a_rest(self, harness: RabbitmqSourceHarness) -> None:
        harness.send(messages(1, 30))
        with opened(harness) as source:
            take(source, 10)
            source.release()
            found = harness.broker.ask(lambda channel: channel.queue_declare(harness.queue, passive=True))
            assert (found.message_count, found.consumer_count) == (30, 0)


class TestAcknowledging:
    def test_out_of_order_acknowledges_these_and_no_others(self, harness: RabbitmqSourceHarness) -> None:
        harness.send(messages(1, 10))
        with opened(harness) as source:
            taken = take(source, 10)
            source.ack(taken[3:6])
            source.ack(taken[8:9])
        assert harness.broker.count(harness.queue) == 6

    def test_messages_of_another_connection_is_harmless(self, harness: RabbitmqSourceHarness) -> None:
        harness.send(messages(1, 10))
        with opened(harness) as source:
            old = take(source, 5)
            source.open({})
            new = take(source, 5)
            source.ack(old)
            source.ack(new[:1])
        assert harness.broker.count(harness.queue) == 9

    def test_after_a_lost_connection_says_so(self, harness: RabbitmqSourceHarness) -> None:
        harness.send(messages(1, 10))
        with opened(harness) as source:
            assert isinstance(source, RabbitmqSource)
            taken = take(source, 5)
            assert source._consumer is not None
            source._consumer.abort()
            with pytest.raises(NotConnected):
                until_it_raises(lambda: receive(source, 10, 0))
            with pytest.raises(NotConnected):
                source.ack(taken)
        assert wait_until(lambda: harness.broker.count(harness.queue) == 10)


def test_a_wait_longer_than_the_heartbeat_keeps_the_connection(
    harness: RabbitmqSourceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.backends.rabbitmq.consumer.HEARTBEAT_SECONDS", 1)
    with opened(harness) as source:
        assert receive(source, 10, 3.5) == []
        harness.send(messages(1, 1))
        assert len(within(Limits.moment_seconds, lambda: take(source, 1))) == 1


def test_the_source_is_the_one_of_the_table() -> None:
    assert source_class("rabbitmq") is RabbitmqSource
