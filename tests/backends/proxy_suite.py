"""What a bad network does to a sink and to a source, as scenarios for every backend that has a network.

A backend's test file subclasses `ProxySinkSuite` or `ProxySourceSuite` and gives it two fixtures: `troublemaker`, a
`Proxy` before its server, and `harness`, whose configuration leads through it, while its `read_all` or `send` goes
past it:

    class TestNatsBehindAProxy(ProxySinkSuite):
        @pytest.fixture
        def troublemaker(self, nats_server, proxy):
            return proxy(nats_server.url)

        @pytest.fixture
        def harness(self, nats_server, troublemaker):
            return ...
"""

import contextlib
import time

from relay.errors import NotConnected
from tests.backends.harness import Harness
from tests.backends.source_harness import SourceHarness
from tests.backends.source_steps import Drainer, Inbox, assert_in_order, messages, receive
from tests.backends.source_steps import opened as source_opened
from tests.backends.steps import (
    Feeder,
    Limits,
    assert_first_arrivals_in_order,
    claims,
    deliver,
    numbers,
    opened,
    records,
    within,
)
from tests.services.proxy import Proxy
from tests.waiting import wait_until

TIMEOUT_MS = 1000
LATE_SECONDS = 3.0


class ProxySinkSuite:
    def test_a_batch_that_is_cut_in_the_middle_is_delivered_whole_in_the_end(
        self, harness: Harness, troublemaker: Proxy
    ) -> None:
        batch = records(harness, 1, 200, padding=500)
        with opened(harness, timeout_ms=2 * TIMEOUT_MS) as sink:
            for part in (1000, 20_000, 70_000):
                troublemaker.cut_after(part)
                claimed = within(2 * TIMEOUT_MS / 1000 + Limits.moment_seconds, lambda: claims(sink, batch))
                assert claimed <= set(numbers(harness)), "reported delivered, and missing"
                with contextlib.suppress(NotConnected):
                    sink.open()
            deliver(sink, batch)
        arrived = numbers(harness)
        assert set(arrived) == set(range(1, 201))
        assert_first_arrivals_in_order(harness, arrived)

    def test_nothing_reported_delivered_is_missing_on_a_line_that_is_cut_again_and_again(
        self, harness: Harness, troublemaker: Proxy
    ) -> None:
        with opened(harness, timeout_ms=2 * TIMEOUT_MS) as sink, Feeder(harness, sink) as feeder:
            feeder.wait_for(delivered=40)
            for _ in range(5):
                before = feeder.delivered
                troublemaker.cut()
                feeder.wait_for(before + 40)
        arrived = numbers(harness)
        assert set(range(1, feeder.delivered + 1)) <= set(arrived), "reported delivered, and missing"
        assert_first_arrivals_in_order(harness, arrived)

    def test_a_server_that_answers_too_late_does_not_hold_the_caller(
        self, harness: Harness, troublemaker: Proxy
    ) -> None:
        batch = records(harness, 1, 50)
        with opened(harness, timeout_ms=TIMEOUT_MS) as sink:
            troublemaker.delay(LATE_SECONDS)
            claimed = within(TIMEOUT_MS / 1000 + Limits.moment_seconds, lambda: claims(sink, batch))
            assert claimed == set(), "reported delivered before the server can have answered"
            troublemaker.heal()
            deliver(sink, batch)
        arrived = numbers(harness)
        assert set(arrived) == set(range(1, 51))
        assert_first_arrivals_in_order(harness, arrived)

    def test_a_line_that_only_one_side_has_closed_is_noticed(self, harness: Harness, troublemaker: Proxy) -> None:
        batch = records(harness, 1, 50)
        with opened(harness, timeout_ms=TIMEOUT_MS) as sink:
            assert claims(sink, batch[:10]) == set(range(1, 11))
            troublemaker.half_close()
            claimed = within(TIMEOUT_MS / 1000 + Limits.moment_seconds, lambda: claims(sink, batch[10:]))
            assert claimed <= set(numbers(harness)), "reported delivered, and missing"
            deliver(sink, batch[10:])
        assert set(numbers(harness)) == set(range(1, 51))


class ProxySourceSuite:
    def test_nothing_is_lost_on_a_line_that_is_cut_again_and_again(
        self, harness: SourceHarness, troublemaker: Proxy
    ) -> None:
        inbox = Inbox()
        harness.send(messages(1, 400))
        with source_opened(harness, timeout_ms=2 * TIMEOUT_MS) as source, Drainer(source, inbox) as drainer:
            for written in (40, 120, 200, 280):
                drainer.wait_for(written=written)
                troublemaker.cut()
            drainer.wait_for(written=400)
        assert sorted(inbox.numbers()) == list(range(1, 401))
        assert_in_order(harness, list(inbox.rows.values()))
        assert inbox.repeats == 0 or not harness.features.has_positions, "stored positions were not kept to"

    def test_an_acknowledgement_that_is_cut_stores_nothing_twice(
        self, harness: SourceHarness, troublemaker: Proxy
    ) -> None:
        inbox = Inbox()
        harness.send(messages(1, 100))
        with source_opened(harness, timeout_ms=2 * TIMEOUT_MS) as source:
            received = wait_until(lambda: receive(source, 50, 1.0), Limits.patience_seconds)
            inbox.write(received)
            troublemaker.cut_after(1)
            with contextlib.suppress(NotConnected):
                within(2 * TIMEOUT_MS / 1000 + Limits.moment_seconds, lambda: source.ack(received))
            troublemaker.cut()
        with source_opened(harness, inbox.positions) as source, Drainer(source, inbox) as drainer:
            drainer.wait_for(written=100)
        assert sorted(inbox.numbers()) == list(range(1, 101))

    def test_a_server_that_answers_too_late_does_not_hold_the_caller(
        self, harness: SourceHarness, troublemaker: Proxy
    ) -> None:
        inbox = Inbox()
        harness.send(messages(1, 50))
        with source_opened(harness, timeout_ms=TIMEOUT_MS) as source:
            troublemaker.delay(LATE_SECONDS)
            began = time.monotonic()
            with contextlib.suppress(NotConnected):
                inbox.write(within(1 + TIMEOUT_MS / 1000 + Limits.moment_seconds, lambda: receive(source, 10, 1.0)))
            assert time.monotonic() - began < 1 + TIMEOUT_MS / 1000 + Limits.moment_seconds
            within(TIMEOUT_MS / 1000 + Limits.moment_seconds, source.close)
            troublemaker.heal()
        with source_opened(harness, inbox.positions) as source, Drainer(source, inbox) as drainer:
            drainer.wait_for(written=50)
        assert sorted(inbox.numbers()) == list(range(1, 51))

    def test_a_line_that_only_one_side_has_closed_is_noticed(self, harness: SourceHarness, troublemaker: Proxy) -> None:
        inbox = Inbox()
        harness.send(messages(1, 20))
        with source_opened(harness, timeout_ms=TIMEOUT_MS) as source, Drainer(source, inbox) as drainer:
            drainer.wait_for(written=20)
            troublemaker.half_close()
            harness.send(messages(21, 20))
            drainer.wait_for(written=40)
        assert sorted(inbox.numbers()) == list(range(1, 41))
