"""What is true of the RabbitMQ sink alone, on a real server."""

from collections.abc import Sequence

import pytest

from relay.backends.rabbitmq.sink import RabbitmqSink
from relay.backends.registry import sink_class
from relay.backends.sink import Sink
from relay.errors import NotConnected
from relay.models import Failure, Record
from tests.backends.rabbitmq.harness import RabbitmqHarness
from tests.backends.steps import Limits, claims, opened, publish, start, within
from tests.services.rabbitmq import RabbitmqServer
from tests.waiting import wait_until


@pytest.fixture
def harness(rabbitmq_server: RabbitmqServer) -> RabbitmqHarness:
    return RabbitmqHarness(rabbitmq_server)


def said(failures: list[Failure]) -> list[tuple[int, bool, str]]:
    return [(failure.index, failure.permanent, failure.code) for failure in failures]


class TestRefusals:
    def test_what_no_queue_takes_is_refused_for_good(self, harness: RabbitmqHarness) -> None:
        with opened(harness, binding_key="*.taken") as sink:
            failures = publish(sink, harness.records("taken", "other", "taken"))
        assert said(failures) == [(1, True, "unroutable")]
        assert f"{harness.name}.other" in failures[0].reason
        assert harness.ids() == [1, 3]

    def test_without_mandatory_the_server_drops_it(self, harness: RabbitmqHarness) -> None:
        with opened(harness, binding_key="*.taken", mandatory=False) as sink:
            assert publish(sink, harness.records("taken", "other", "taken")) == []
        assert harness.ids() == [1, 3]

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"subject": "x" * 256}, "bad_routing_key"),
            ({"headers": {"x" * 256: "1"}}, "bad_header"),
            ({"headers": {"content-type": "x" * 256}}, "bad_header"),
            ({"headers": {"long": "x" * 140_000}}, "too_large"),
        ],
    )
    def test_what_amqp_cannot_carry_is_refused_for_good(
        self, harness: RabbitmqHarness, change: dict[str, object], code: str
    ) -> None:
        batch = harness.records("a", "b", "c")
        batch[1] = batch[1]._replace(**change)  # type: ignore[arg-type]
        with opened(harness) as sink:
            assert said(publish(sink, batch)) == [(1, True, code)]
        assert harness.ids() == [1, 3]

    def test_the_servers_own_limit_is_learnt_from_its_refusal(self, harness: RabbitmqHarness) -> None:
        batch = harness.records(*"abcde")
        batch[2] = batch[2]._replace(body=b"x" * 5001)
        with harness.broker.limited(5000), opened(harness) as sink:
            refused = within(Limits.moment_seconds, lambda: publish_through(sink, batch))
        assert said(refused) == [(2, True, "too_large")]
        assert sorted(set(harness.ids())) == [1, 2, 4, 5]

    def test_commands_to_the_server_do_not_travel_as_headers_of_a_message(self, harness: RabbitmqHarness) -> None:
        (sent,) = harness.records("a")
        sent = sent._replace(headers={"CC": "elsewhere", "BCC": "elsewhere", "mine": "1"})
        with opened(harness) as sink:
            assert publish(sink, [sent]) == []
        (seen,) = harness.read_all()
        assert seen.headers == {"mine": "1"}


class TestAFullQueue:
    @pytest.fixture
    def harness(self, rabbitmq_server: RabbitmqServer) -> RabbitmqHarness:
        harness = RabbitmqHarness(rabbitmq_server)
        arguments = {"x-max-length": 2, "x-overflow": "reject-publish"}
        harness.broker.make_queue(f"{harness.name}-full", harness.name, "*.full", **arguments)
        harness.broker.make_queue(harness.name, harness.name, "*.roomy")
        return harness

    def test_is_temporary_and_a_later_record_for_another_queue_overtakes(self, harness: RabbitmqHarness) -> None:
        batch = harness.records("full", "full", "full", "roomy", "full")
        with opened(harness, declare=False, queue=None) as sink:
            assert said(publish(sink, batch)) == [(2, False, "nacked"), (4, False, "nacked")]
            harness.broker.ask(lambda channel: channel.queue_purge(f"{harness.name}-full"))
            assert publish(sink, batch[2:]) == []
        assert harness.broker.count(f"{harness.name}-full") == 2
        assert harness.ids() == [4], "what had been delivered was sent again"

    def test_nothing_overtakes_with_one_in_flight(self, harness: RabbitmqHarness) -> None:
        with opened(harness, declare=False, queue=None, max_in_flight=1) as sink:
            failures = publish(sink, harness.records("full", "full", "full", "roomy"))
        assert said(failures) == [(2, False, "nacked"), (3, False, "not_sent")]
        assert harness.ids() == []

    def test_what_is_published_again_on_purpose_is_sent_again(self, harness: RabbitmqHarness) -> None:
        batch = harness.records("roomy", "roomy")
        with opened(harness, declare=False, queue=None) as sink:
            assert publish(sink, batch) == []
            assert publish(sink, batch) == []
        assert harness.ids() == [1, 2, 1, 2]


class TestASlowServer:
    def test_gets_nothing_twice_over_one_connection(self, harness: RabbitmqHarness) -> None:
        batch = harness.records(*"abcde")
        with opened(harness, timeout_ms=300) as sink:
            with harness.stall():
                assert [failure.code for failure in publish(sink, batch)] == ["timeout"] * 5
            assert publish_through(sink, batch) == []
        assert harness.ids() == [1, 2, 3, 4, 5]

    def test_that_is_silent_for_two_publishes_is_given_up(self, harness: RabbitmqHarness) -> None:
        batch = harness.records("a")
        with opened(harness, timeout_ms=200) as sink, harness.stall():
            assert said(publish(sink, batch)) == [(0, False, "timeout")]
            with pytest.raises(NotConnected) as caught:
                publish(sink, batch)
            assert caught.value.code == "timeout"
            with pytest.raises(NotConnected):
                publish(sink, batch)

    def test_that_reads_nothing_does_not_hold_the_caller(self, harness: RabbitmqHarness) -> None:
        # More than what the system's buffers take.
        batch = harness.records(*["a"] * 300, body=b"x" * 50_000)
        with opened(harness, timeout_ms=300) as sink, harness.stall():
            assert within(0.3 + Limits.moment_seconds, lambda: claims(sink, batch)) == set()

    def test_does_not_hold_up_a_close(self, harness: RabbitmqHarness) -> None:
        sink = harness.make_sink(timeout_ms=60_000)
        sink.open()
        with harness.stall():
            publishing = start(lambda: claims(sink, harness.records("a")))
            assert isinstance(sink, RabbitmqSink)
            wait_until(sink._in_use.locked)
            within(Limits.moment_seconds, sink.close)
            assert publishing(Limits.moment_seconds) == set()

    def test_an_alarm_is_temporary_and_costs_no_duplicates(self, harness: RabbitmqHarness) -> None:
        # More than what the system's buffers take: a server that blocks reads nothing.
        batch = harness.records(*["a"] * 300, body=b"x" * 50_000)
        with opened(harness, timeout_ms=500) as sink:
            with harness.broker.alarmed():
                for _ in range(3):
                    failures = within(0.5 + Limits.moment_seconds, lambda: publish(sink, batch))
                    assert {(failure.permanent, failure.code) for failure in failures} == {(False, "blocked")}
            assert publish_through(sink, batch) == []
        assert harness.ids() == list(range(1, 301))


class TestTheExchange:
    def test_that_is_gone_is_made_again_by_opening(self, harness: RabbitmqHarness) -> None:
        with opened(harness) as sink:
            harness.broker.ask(lambda channel: channel.exchange_delete(harness.name))
            with pytest.raises(NotConnected) as caught:
                publish(sink, harness.records("a"))
            assert caught.value.code == "not_found"
            sink.open()
            assert publish(sink, harness.records("a")) == []

    def test_that_exists_is_not_changed(self, harness: RabbitmqHarness) -> None:
        harness.broker.ask(lambda channel: channel.exchange_declare(harness.name, "fanout", durable=False))
        with opened(harness) as sink:
            assert publish(sink, harness.records("a")) == []

    def test_of_no_name_takes_the_name_of_a_queue(self, harness: RabbitmqHarness) -> None:
        with opened(harness, exchange="") as sink:
            records = [record._replace(subject=harness.name) for record in harness.records("a", "b")]
            assert publish(sink, records) == []
        assert harness.ids() == [1, 2]


def test_a_receiver_gets_the_properties_of_the_page(harness: RabbitmqHarness) -> None:
    (plain, typed) = harness.records("a", "b")
    typed = typed._replace(headers={"content-type": "text/plain", "own": "Zoë", "fixed": "own"}, key="ключ")
    fixed = {"fixed": "ours", "number": -(2**40), "yes": True, "half": 0.5}
    with opened(harness, headers=fixed) as sink:
        assert publish(sink, [plain, typed]) == []
    seen_plain, seen_typed = (message.properties for message in harness.broker.read_all(harness.name))
    assert seen_plain.pop("timestamp") > 1_700_000_000
    assert seen_plain == {
        "content_type": "application/json",
        "delivery_mode": 2,
        "message_id": "orders:1",
        "app_id": "tide-relay",
        "application_headers": fixed,
    }
    assert seen_typed["content_type"] == "text/plain"
    assert seen_typed["application_headers"] == fixed | {"own": "Zoë", "fixed": "own", "relay-key": "ключ"}


def test_a_node_that_is_down_is_passed_over(harness: RabbitmqHarness) -> None:
    with opened(harness, url=["amqp://127.0.0.1:1", harness.config()["url"]]) as sink:
        assert publish(sink, harness.records("a")) == []
    nowhere = harness.make_sink(url=["amqp://127.0.0.1:1", "amqp://127.0.0.1:2"])
    with pytest.raises(NotConnected):
        nowhere.open()


def test_a_message_of_many_frames_arrives_whole(harness: RabbitmqHarness) -> None:
    body = bytes(range(256)) * 40_000
    with opened(harness) as sink:
        assert publish(sink, harness.records("a", body=body)) == []
    assert [seen.body for seen in harness.read_all()] == [body]


def test_the_sink_is_the_one_of_the_table() -> None:
    assert sink_class("rabbitmq") is RabbitmqSink


def publish_through(sink: Sink, batch: Sequence[Record]) -> list[Failure]:
    """As a drain does, until all are delivered or permanently refused; returns the refusals."""
    refused: list[Failure] = []
    first = 0
    while first < len(batch):
        try:
            failures = publish(sink, batch[first:])
        except NotConnected:
            sink.open()
            continue
        blocked_by = next((failure.index for failure in failures if not failure.permanent), len(batch) - first)
        refused += [Failure(f.index + first, True, f.code, f.reason) for f in failures if f.index < blocked_by]
        first += blocked_by
    return refused
