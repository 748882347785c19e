"""What is true of the SQS sink alone, on moto."""

from collections.abc import Callable

import pytest

from relay.errors import ConfigError, NotConnected
from relay.models import Record
from tests.backends.sqs.harness import SqsHarness, SqsQueue
from tests.backends.steps import number_of, opened, publish, records
from tests.services.moto import MotoServer
from tests.services.proxy import Proxy

MakeProxy = Callable[[str], Proxy]


@pytest.fixture
def harness(moto_server: MotoServer, proxy: MakeProxy) -> SqsHarness:
    return SqsHarness(moto_server, proxy(moto_server.url))


@pytest.fixture
def fifo(moto_server: MotoServer, proxy: MakeProxy) -> SqsHarness:
    return SqsHarness(moto_server, proxy(moto_server.url), fifo=True)


def keyed(*keys: str | None, first: int = 1) -> list[Record]:
    return [
        Record(number, f"orders:{number}", "", key, b'{"n": %d}' % number, {}) for number, key in enumerate(keys, first)
    ]


class TestRefusals:
    def test_the_queues_own_limit_holds(self, moto_server: MotoServer, proxy: MakeProxy) -> None:
        harness = SqsHarness(moto_server, proxy(moto_server.url), MaximumMessageSize="2048")
        batch = records(harness, 1, 3)
        batch[1] = batch[1]._replace(body=b'"' + b"x" * 2000 + b'"', headers={"long": "y" * 100})
        with opened(harness) as sink:
            failures = publish(sink, batch)
        assert [(f.index, f.permanent, f.code) for f in failures] == [(1, True, "too_large")]
        assert [number_of(seen) for seen in harness.read_all()] == [1, 3]

    def test_one_message_that_spoils_a_request_is_refused_alone(self, harness: SqsHarness) -> None:
        batch = records(harness, 1, 12)
        batch[4] = batch[4]._replace(body=b'"' + b"x" * 3000 + b'"')
        with opened(harness) as sink:
            # The limit is lowered after it was asked for: the service itself has to refuse, the whole request.
            harness.queue.client.set_queue_attributes(
                QueueUrl=harness.queue.url, Attributes={"MaximumMessageSize": "2048"}
            )
            failures = publish(sink, batch)
        assert [(f.index, f.permanent, f.code) for f in failures] == [(4, True, "bad_message")]
        assert sorted(number_of(seen) for seen in harness.read_all()) == [1, 2, 3, 4, *range(6, 13)]

    def test_a_queue_that_was_deleted_is_named_by_opening(self, harness: SqsHarness) -> None:
        with opened(harness) as sink:
            harness.queue.client.delete_queue(QueueUrl=harness.queue.url)
            with pytest.raises(NotConnected) as caught:
                publish(sink, records(harness, 1, 3))
            assert caught.value.code == "no_queue"
            with pytest.raises(ConfigError, match=harness.queue.name):
                sink.open()


class TestFifo:
    def test_each_group_arrives_in_order(self, fifo: SqsHarness) -> None:
        batch = keyed(*[f"k{number % 5}" for number in range(100)])
        with opened(fifo) as sink:
            assert publish(sink, batch) == []
        arrived: dict[str | None, list[int]] = {}
        for seen in fifo.read_all():
            arrived.setdefault(seen.key, []).append(number_of(seen))
        assert arrived == {f"k{n}": [m for m in range(1, 101) if (m - 1) % 5 == n] for n in range(5)}

    def test_what_is_sent_again_arrives_once(self, fifo: SqsHarness) -> None:
        batch = keyed(*["a", "b"] * 10)
        with opened(fifo) as sink:
            assert publish(sink, batch) == []
            assert publish(sink, batch) == []
        assert sorted(number_of(seen) for seen in fifo.read_all()) == list(range(1, 21))

    def test_ids_are_those_of_the_record(self, fifo: SqsHarness) -> None:
        with opened(fifo) as sink:
            assert publish(sink, keyed("customer-42", "naïve key", None)) == []
        fifo.read_all()
        system = [message["Attributes"] for message in fifo.taken]
        assert sorted(of["MessageDeduplicationId"] for of in system) == ["orders:1", "orders:2", "orders:3"]
        groups = {of["MessageGroupId"] for of in system}
        assert {"customer-42", "orders"} < groups
        assert len(groups) == 3

    def test_a_queue_that_is_made_is_a_fifo_queue(self, fifo: SqsHarness) -> None:
        missing = fifo.missing_destination()
        with opened(fifo, **missing.overrides | missing.create) as sink:
            assert publish(sink, keyed("a")) == []
        attributes = fifo.queue.client.get_queue_attributes(
            QueueUrl=missing.overrides["queue_url"], AttributeNames=["All"]
        )["Attributes"]
        assert attributes["FifoQueue"] == "true"


class TestWhatTravels:
    def test_headers_are_attributes_that_any_receiver_reads(self, harness: SqsHarness) -> None:
        headers = {"relay-id": "orders:1", "trace": "00-ab"}
        with opened(harness) as sink:
            assert publish(sink, [Record(1, "orders:1", "", "42", b'{"a": 1}', headers)]) == []
        harness.read_all()
        (message,) = harness.taken
        found = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
        assert (message["Body"], found) == ('{"a": 1}', headers | {"relay-key": "42"})

    @pytest.mark.parametrize(
        "headers",
        [{f"h{n}": str(n) for n in range(30)}, {"a b": "x", "AWS.y": "z", "": "w"}, {"empty": "", "bell": "\a"}],
    )
    def test_headers_that_sqs_refuses_arrive_all_the_same(self, harness: SqsHarness, headers: dict[str, str]) -> None:
        with opened(harness) as sink:
            assert publish(sink, [Record(1, "orders:1", "", None, b"{}", headers)]) == []
        (seen,) = harness.read_all()
        assert seen.headers == headers

    def test_a_body_of_control_characters_arrives_all_the_same(self, harness: SqsHarness) -> None:
        with opened(harness) as sink:
            assert publish(sink, [Record(1, "orders:1", "", None, b"\x00\xff\x07", {})]) == []
        (seen,) = harness.read_all()
        assert seen.body == b"\x00\xff\x07"

    def test_the_largest_body_arrives(self, harness: SqsHarness) -> None:
        body = b'"' + b"x" * (1024 * 1024 - 2) + b'"'
        with opened(harness) as sink:
            assert publish(sink, [Record(1, "orders:1", "", None, body, {})]) == []
        (seen,) = harness.read_all()
        assert seen.body == body


def test_the_address_of_the_queue_is_enough_to_find_the_server(moto_server: MotoServer, harness: SqsHarness) -> None:
    with opened(harness, endpoint_url=None, queue_url=harness.queue.url) as sink:
        assert publish(sink, records(harness, 1, 1)) == []
    assert len(harness.read_all()) == 1


def test_other_queues_are_left_alone(moto_server: MotoServer, harness: SqsHarness) -> None:
    other = SqsQueue(moto_server)
    with opened(harness) as sink:
        assert publish(sink, records(harness, 1, 30)) == []
    assert other.take_all() == []
