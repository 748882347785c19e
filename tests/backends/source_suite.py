"""The contract of a source, as scenarios. Each backend passes all; one is skipped only by a declared feature.

A backend's test file subclasses `SourceSuite` and gives it a `harness` fixture. Another configuration of the same
backend runs the scenarios that may end otherwise with it (variants.py). `test_source_broken_fakes.py` shows that
sources which break the contract fail here.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from relay.backends.source import ALL, MAX_HELD_BYTES, Lane, Source
from relay.errors import NotConnected
from relay.models import Received
from tests.backends.source_harness import Sent, SourceHarness
from tests.backends.source_steps import (
    Drainer,
    Inbox,
    assert_in_order,
    messages,
    needs,
    number_of,
    numbers,
    opened,
    or_none,
    peak_growth_bytes,
    receive,
    store,
    take,
)
from tests.backends.source_suite_redelivery import Trouble, WhatComesAgain
from tests.backends.steps import Limits, start, within
from tests.backends.variants import Suite

STALL_TIMEOUT_MS = 300
LONG_WAIT_SECONDS = 20.0


class WhatArrives:
    def test_bodies_arrive_unchanged(self, harness: SourceHarness) -> None:
        harness.send([Sent(body) for body in harness.bodies])
        with opened(harness) as source:
            arrived = [message.body for message in take(source, len(harness.bodies))]
        assert all(type(body) is bytes for body in arrived)
        left = list(arrived)
        for sent in harness.bodies:
            like = [body for body in left[:1] if harness.features.ordered] or left
            same = next((body for body in like if harness.alike(sent, body)), None)
            assert same is not None, f"{sent[:60]!r} did not arrive"
            left.remove(same)

    def test_keys_arrive_beside_the_body(self, harness: SourceHarness) -> None:
        needs(harness, harness.features.keeps_key, "keeps_key")
        keys = ["a", None, "ключ", "a b"]
        sent = [Sent(message.body, key) for message, key in zip(messages(1, 4), keys, strict=True)]
        harness.send(sent)
        with opened(harness) as source:
            arrived = {number_of(message): message.key for message in take(source, 4)}
        assert arrived == dict(enumerate(keys, 1))

    def test_headers_arrive_beside_the_body(self, harness: SourceHarness) -> None:
        needs(harness, harness.features.keeps_headers, "keeps_headers")
        headers: list[dict[str, str]] = [{"trace": "00-ab", "type": "order.created"}, {"name": "Zoë 日本"}, {}]
        harness.send([Sent(message.body, None, of) for message, of in zip(messages(1, 3), headers, strict=True)])
        with opened(harness) as source:
            arrived = {number_of(message): message.headers for message in take(source, 3)}
        for number, expected in enumerate(headers, 1):
            assert arrived[number].items() >= expected.items()

    def test_a_message_that_cannot_be_converted_is_a_failure_and_its_neighbours_arrive(
        self, harness: SourceHarness
    ) -> None:
        convert = harness.kind.convert

        def with_a_bug(source: Source, message: Any) -> Received:
            received = convert(source, message)
            if number_of(received) == 2:
                raise RecursionError("nested too deeply")
            return received

        harness.send(messages(1, 3))
        inbox = Inbox()
        with pytest.MonkeyPatch.context() as patch, opened(harness) as source:
            patch.setattr(harness.kind, "convert", with_a_bug)
            arrived = take(source, 3)
            codes = {number_of(message): message.failure and message.failure.code for message in arrived}
            assert codes == {1: None, 2: "internal", 3: None}
            store(source, inbox, arrived)
        with opened(harness, inbox.positions) as source:
            assert receive(source, 10, 0.1) == [], "it is done"

    def test_batches_arrive_whole_and_in_order(self, harness: SourceHarness) -> None:
        with opened(harness) as source:
            first = 1
            for size in (1, 250, 600, 3):
                harness.send(messages(first, size))
                arrived = take(source, size, batch=97)
                assert sorted(numbers(arrived)) == list(range(first, first + size))
                assert_in_order(harness, arrived)
                source.ack(arrived)
                first += size

    def test_no_more_arrive_than_were_asked_for(self, harness: SourceHarness) -> None:
        harness.send(messages(1, 30))
        with opened(harness) as source:
            sizes = [len(take(source, 1, batch=1)) for _ in range(5)]
            assert sizes == [1] * 5
            assert len(take(source, 25, batch=7)) == 25

    def test_a_source_may_be_used_by_one_thread_after_the_other(self, harness: SourceHarness) -> None:
        harness.send(messages(1, 2))
        with opened(harness) as source:
            first = within(Limits.patience_seconds, lambda: take(source, 1))
            source.ack(first)
            second = take(source, 1)
            within(Limits.patience_seconds, lambda: source.ack(second))
        assert sorted(numbers(first + second)) == [1, 2]

    def test_a_backlog_of_large_messages_does_not_fill_the_memory(self, harness: SourceHarness) -> None:
        count, size = 100, harness.largest_body_bytes - 100
        for first in range(1, count + 1, 10):
            harness.send(messages(first, 10, padding=size))
        inbox: set[int] = set()

        def drain() -> None:
            deadline = time.monotonic() + Limits.patience_seconds
            while len(inbox) < count:
                assert time.monotonic() < deadline, f"only {len(inbox)} of {count} messages came"
                received = receive(source, 1000, 1.0)
                source.ack(received)
                inbox.update(numbers(received))

        with opened(harness) as source:
            # What it holds, what it handed out, what reading of JSON takes here, and what the allocator keeps.
            assert peak_growth_bytes(drain) < 4 * MAX_HELD_BYTES


class HowLongItWaits:
    def test_an_empty_source_waits_as_long_as_asked(self, harness: SourceHarness) -> None:
        with opened(harness) as source:
            began = time.monotonic()
            assert receive(source, 10, 1.0) == []
            assert 0.9 <= time.monotonic() - began <= 1.0 + Limits.moment_seconds
            began = time.monotonic()
            assert receive(source, 10, 0) == []
            assert time.monotonic() - began <= Limits.moment_seconds

    def test_a_message_ends_the_wait(self, harness: SourceHarness) -> None:
        with opened(harness) as source:
            receive(source, 10, 0)
            for number in (1, 2):
                coming = start(lambda: receive(source, 10, LONG_WAIT_SECONDS))
                harness.send(messages(number, 1))
                received = coming(Limits.moment_seconds)
                assert numbers(received) == [number]
                source.ack(received)

    def test_what_is_there_is_not_waited_for(self, harness: SourceHarness) -> None:
        harness.send(messages(1, 3))
        with opened(harness) as source:
            assert within(Limits.moment_seconds, lambda: receive(source, 10, LONG_WAIT_SECONDS)) != []

    def test_a_backend_that_stalls_does_not_hold_the_caller_beyond_the_time_limit(self, harness: SourceHarness) -> None:
        harness.send(messages(1, 300))
        inbox = Inbox()
        limit = STALL_TIMEOUT_MS / 1000 + Limits.moment_seconds
        with opened(harness, timeout_ms=STALL_TIMEOUT_MS) as source:
            store(source, inbox, take(source, 10))
            unfinished = take(source, 10)
            with harness.stall():
                inbox.write(unfinished)
                for call in (lambda: source.ack(unfinished), lambda: inbox.write(receive(source, 10, 0.2))):
                    with contextlib.suppress(NotConnected):
                        within(0.2 + limit, call)
                within(limit, source.close)
        with opened(harness, inbox.positions) as source, Drainer(source, inbox) as drainer:
            drainer.wait_for(written=300)
        assert sorted(inbox.numbers()) == list(range(1, 301))

    def test_closing_during_a_receive_ends_both(self, harness: SourceHarness) -> None:
        source = harness.make_source()
        source.open({})
        try:
            receive(source, 10, 0)
            waiting = start(lambda: or_none(lambda: receive(source, 10, LONG_WAIT_SECONDS)))
            within(Limits.moment_seconds, source.close)
            assert waiting(Limits.moment_seconds) in ([], None)
        finally:
            within(Limits.patience_seconds, source.close)


class WhereThereAreLanes:
    def test_lanes_share_the_messages_and_what_one_leaves_behind_comes_to_the_others(
        self, harness: SourceHarness
    ) -> None:
        needs(harness, harness.features.one_lane is None, "several lanes")
        inbox = Inbox()
        first = range(1, 41)
        harness.divide()
        with _lane(harness, Lane(0, 2)) as one, _lane(harness, Lane(1, 2)) as other:
            harness.send_apart(messages(1, len(first)))
            counts = {one: 0, other: 0}
            deadline = time.monotonic() + Limits.patience_seconds
            while not set(first) <= set(inbox.numbers()):
                assert time.monotonic() < deadline, f"only {len(inbox.rows)} of {len(first)} messages came"
                for source in counts:
                    received = receive(source, 3, 0.2)
                    counts[source] += len(received)
                    store(source, inbox, received)
            assert inbox.repeats == 0, "a message came to both"
            assert all(counts.values()), "one lane got everything"
            harness.send_apart(messages(len(first) + 1, 10))
            one.receive(100, 1.0)
            other.receive(100, 1.0)
        with _lane(harness, ALL, inbox.positions) as alone:
            store(alone, inbox, take(alone, 10))
        assert sorted(inbox.numbers()) == list(range(1, len(first) + 11))
        assert inbox.repeats == 0


@contextlib.contextmanager
def _lane(harness: SourceHarness, lane: Lane, positions: Mapping[str, str] | None = None) -> Iterator[Source]:
    source = harness.make_source(**harness.takes_over_at_once)
    source.lane = lane
    try:
        source.open(positions or {})
        yield source
    finally:
        within(Limits.patience_seconds, source.close)


class SourceSuite(WhatArrives, HowLongItWaits, WhatComesAgain, Trouble, WhereThereAreLanes, Suite):
    """All of it."""
