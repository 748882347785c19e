"""What is true of the SQS source alone, on moto."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from relay.backends.sqs.held import Holding
from relay.backends.sqs.source import SqsSource
from relay.errors import ConfigError, NotConnected
from tests.backends.source_harness import Sent
from tests.backends.source_steps import messages, numbers, opened, or_none, receive, take
from tests.backends.sqs.harness import SqsQueue
from tests.backends.sqs.source_harness import SqsSourceHarness
from tests.backends.steps import Limits, start, within
from tests.services.moto import MotoServer
from tests.services.proxy import Proxy
from tests.waiting import wait_until


@pytest.fixture
def harness(moto_server: MotoServer, proxy: Callable[[str], Proxy]) -> SqsSourceHarness:
    return SqsSourceHarness(moto_server, proxy(moto_server.url))


def hidden(queue: SqsQueue) -> int:
    """How many messages of the queue are received and not deleted."""
    name = "ApproximateNumberOfMessagesNotVisible"
    found = queue.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=[name])["Attributes"]
    return int(found[name])


class TestVisibility:
    def test_what_is_held_does_not_come_again_while_it_is_held(self, harness: SqsSourceHarness) -> None:
        harness.send(messages(1, 12))
        # Two seconds, because a loaded machine may not come to extend it within one.
        with opened(harness, visibility_timeout=2) as source:
            held = take(source, 12)
            end = time.monotonic() + 3.5
            while time.monotonic() < end:
                assert receive(source, 10, 0.3) == []
            source.ack(held)
        assert harness.queue.take_all() == []

    def test_what_a_worker_held_that_is_gone_comes_again(self, harness: SqsSourceHarness) -> None:
        harness.send(messages(1, 3))
        with opened(harness, visibility_timeout=1) as source:
            assert isinstance(source, SqsSource)
            take(source, 3)
            source._holding.close()  # as a kill does
            with opened(harness) as other:
                assert sorted(numbers(take(other, 3))) == [1, 2, 3]

    def test_a_wait_that_close_interrupts_gives_back_what_it_brings(self, harness: SqsSourceHarness) -> None:
        source = harness.make_source()
        source.open({})
        waiting = start(lambda: or_none(lambda: receive(source, 10, 20.0)))
        receiving = threading.Event()
        receiving.wait(0.2)
        within(Limits.moment_seconds, source.close)
        assert waiting(Limits.moment_seconds) in ([], None)
        harness.send(messages(1, 1))
        with opened(harness) as other:
            assert numbers(within(Limits.moment_seconds, lambda: take(other, 1))) == [1]

    def test_a_rest_gives_back_a_whole_batch(self, harness: SqsSourceHarness) -> None:
        harness.send(messages(1, 40))
        with opened(harness) as source:
            take(source, 40)
            assert hidden(harness.queue) == 40
            source.release()
            assert hidden(harness.queue) == 0


class TestHolding:
    """The thread that extends, without a service."""

    def test_each_is_extended_until_it_is_removed(self) -> None:
        calls: list[list[str]] = []

        def extend(handles: Sequence[str]) -> Sequence[str]:
            calls.append(list(handles))
            return handles

        holding = Holding(0.2, extend)
        holding.add(f"h{number}" for number in range(25))
        wait_until(lambda: len(calls) >= 6, what="all were extended twice")
        assert {len(call) for call in calls} == {10, 5}
        holding.remove(f"h{number}" for number in range(24))
        known = len(calls)
        wait_until(lambda: len(calls) >= known + 3)
        assert calls[-1] == ["h24"]
        assert holding.take_all() == ["h24"]
        holding.close()
        assert holding._thread is not None
        assert not holding._thread.is_alive()

    def test_what_is_given_back_is_not_extended_afterwards(self) -> None:
        extending, go_on = threading.Event(), threading.Event()
        calls: list[list[str]] = []

        def extend(handles: Sequence[str]) -> Sequence[str]:
            calls.append(list(handles))
            extending.set()
            go_on.wait(10)
            return handles

        holding = Holding(0.2, extend)
        holding.add(f"h{number}" for number in range(15))
        assert extending.wait(10)
        taking = start(holding.take_all)
        go_on.set()
        assert len(taking(Limits.moment_seconds)) == 15
        known = len(calls)
        holding.add(["later"])
        wait_until(lambda: ["later"] in calls)
        assert all(call == ["later"] for call in calls[known:])
        holding.close()

    def test_what_could_not_be_extended_is_tried_again_soon(self) -> None:
        calls: list[list[str]] = []

        def extend(handles: Sequence[str]) -> Sequence[str]:
            calls.append(list(handles))
            return ["extended"]

        holding = Holding(2.0, extend)
        holding.add(["extended", "not extended"])
        wait_until(lambda: len(calls) == 3)
        holding.close()
        # Before the other is due again.
        assert calls == [["extended", "not extended"], ["not extended"], ["not extended"]]


class TestFifo:
    @pytest.fixture
    def harness(self, moto_server: MotoServer, proxy: Callable[[str], Proxy]) -> SqsSourceHarness:
        made = SqsSourceHarness(moto_server, proxy(moto_server.url))
        made.queue = SqsQueue(moto_server, fifo=True)
        return made

    def send(self, harness: SqsSourceHarness, count: int, groups: int) -> None:
        for number in range(1, count + 1):
            harness.queue.client.send_message(
                QueueUrl=harness.queue.url,
                MessageBody=f'{{"n": {number}}}',
                MessageGroupId=f"g{number % groups}",
                MessageDeduplicationId=str(number),
            )

    def test_groups_arrive_in_order_with_their_name_as_key(self, harness: SqsSourceHarness) -> None:
        self.send(harness, 60, groups=3)
        arrived: dict[str | None, list[int]] = {}
        with opened(harness) as source:
            while sum(map(len, arrived.values())) < 60:
                received = receive(source, 100, 1.0)
                for message in received:
                    arrived.setdefault(message.key, []).extend(numbers([message]))
                    assert message.headers["sqs-sequence-number"]
                source.ack(received)
        assert arrived == {f"g{g}": [n for n in range(1, 61) if n % 3 == g] for g in range(3)}

    def test_after_a_rest_a_group_begins_where_it_was(self, harness: SqsSourceHarness) -> None:
        self.send(harness, 20, groups=1)
        with opened(harness) as source:
            received = receive(source, 10, 1.0)
            source.ack(received[:2])
            source.release()
            again = numbers(receive(source, 10, 1.0))
            assert again == list(range(3, 3 + len(again)))


class TestOtherSenders:
    def test_attributes_are_headers(self, harness: SqsSourceHarness) -> None:
        attributes: dict[str, Any] = {
            "kind": {"DataType": "String", "StringValue": "order"},
            "weight": {"DataType": "Number", "StringValue": "12.5"},
            "raw": {"DataType": "Binary", "BinaryValue": b"\x00\x01"},
        }
        harness.queue.client.send_message(
            QueueUrl=harness.queue.url, MessageBody="plain text", MessageAttributes=attributes
        )
        with opened(harness) as source:
            (received,) = take(source, 1)
        assert received.body == b"plain text"
        assert received.headers == {"kind": "order", "weight": "12.5", "raw": "AAE="}
        assert (received.key, received.subject) == (None, harness.queue.name)

    def test_attributes_nested_however_deeply_do_not_stop_the_queue(self, harness: SqsSourceHarness) -> None:
        deep = {"DataType": "String.json", "StringValue": "[" * 50_000}
        for body, attributes in (("1", {}), ("2", {"relay-headers": deep}), ("3", {"other": deep}), ("4", {})):
            harness.queue.client.send_message(
                QueueUrl=harness.queue.url, MessageBody=body, MessageAttributes=attributes
            )
        with opened(harness) as source:
            arrived = take(source, 4)
            source.ack(arrived)
        assert sorted((message.body, message.failure) for message in arrived) == [
            (body, None) for body in (b"1", b"2", b"3", b"4")
        ]


class TestTheQueue:
    def test_is_made_when_configured_so(self, harness: SqsSourceHarness) -> None:
        missing = harness.missing_source()
        with opened(harness, **missing.overrides, create_queue=True) as source:
            assert receive(source, 10, 0) == []

    def test_that_was_deleted_is_named_by_opening(self, harness: SqsSourceHarness) -> None:
        with opened(harness) as source:
            harness.queue.client.delete_queue(QueueUrl=harness.queue.url)
            with pytest.raises(NotConnected) as caught:
                receive(source, 10, 0)
            assert caught.value.code == "no_queue"
            with pytest.raises(ConfigError, match=harness.queue.name):
                source.open({})


def test_many_are_fetched_by_several_requests_at_a_time(harness: SqsSourceHarness) -> None:
    harness.send(messages(1, 100))
    with opened(harness) as source:
        received = receive(source, 100, 1.0)
        assert sorted(numbers(received)) == list(range(1, 101))
        source.ack(received)
    assert harness.queue.take_all() == []


def test_an_acknowledgement_that_does_not_arrive_says_so(harness: SqsSourceHarness) -> None:
    harness.send(messages(1, 1))
    with opened(harness) as source:
        received = take(source, 1)
        harness.stop()
        with pytest.raises(NotConnected):
            source.ack(received)
        harness.start()


def test_a_handle_that_is_no_longer_known_is_no_failure(harness: SqsSourceHarness) -> None:
    harness.send([Sent(b'{"n": 1}')])
    with opened(harness) as source:
        (received,) = take(source, 1)
        source.ack([received._replace(token="never-seen"), received])
        source.ack([received])
    assert harness.queue.take_all() == []
