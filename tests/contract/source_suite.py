"""The contract of a source, as scenarios. Each backend passes all; one is skipped only by a declared feature.

A backend's test file subclasses `SourceSuite` and gives it a `harness` fixture. `test_source_broken_fakes.py` shows
that sources which break the contract fail here.
"""

import contextlib
import time

import pytest

from relay.errors import ConfigError, NotConnected
from relay.sources.base import MAX_HELD_BYTES
from tests.contract.source_harness import PIPELINE, Sent, SourceHarness
from tests.contract.source_steps import (
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
    until_it_raises,
)
from tests.contract.steps import Limits, holdings, start, within

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
        count, size = 150, harness.largest_body_bytes - 100
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


class WhatComesAgain:
    def test_what_was_acknowledged_does_not_come_again(self, harness: SourceHarness) -> None:
        harness.send(messages(1, 30))
        inbox = Inbox()
        with opened(harness) as source:
            store(source, inbox, take(source, 20))
        with opened(harness, inbox.positions) as source:
            store(source, inbox, take(source, 10))
            assert receive(source, 10, 0.3) == []
        with opened(harness, inbox.positions) as source:
            assert receive(source, 10, 0.3) == []
        assert sorted(inbox.numbers()) == list(range(1, 31))
        assert inbox.repeats == 0

    def test_what_was_not_acknowledged_comes_again_at_once_with_the_same_id(self, harness: SourceHarness) -> None:
        needs(harness, harness.features.redelivers or harness.features.has_positions, "redelivers or has_positions")
        harness.send(messages(1, 30))
        inbox = Inbox()
        with opened(harness) as source:
            store(source, inbox, take(source, 5))
            lost = take(source, 20)
        with opened(harness, inbox.positions) as source:
            again = within(Limits.moment_seconds, lambda: take(source, 25))
            assert_in_order(harness, again)
            ids = {message.id: number_of(message) for message in again}
            assert ids.items() >= {message.id: number_of(message) for message in lost}.items()
            store(source, inbox, again)
        assert sorted(inbox.numbers()) == list(range(1, 31))

    def test_after_a_rest_another_worker_receives_everything_at_once(self, harness: SourceHarness) -> None:
        harness.send(messages(1, 60))
        inbox = Inbox()
        with opened(harness) as tired:
            received = take(tired, 20)
            store(tired, inbox, received[:5])
            within(Limits.moment_seconds, tired.rest)
            with opened(harness, inbox.positions) as other:
                rest = within(Limits.moment_seconds, lambda: take(other, 55, batch=10))
                assert_in_order(harness, rest)
                store(other, inbox, rest)
                harness.send(messages(61, 1))
                within(Limits.moment_seconds, lambda: store(other, inbox, take(other, 1)))
        assert sorted(inbox.numbers()) == list(range(1, 62))
        assert inbox.repeats == 0

    def test_after_a_rest_it_may_go_on_by_itself(self, harness: SourceHarness) -> None:
        harness.send(messages(1, 30))
        inbox = Inbox()
        with opened(harness) as source:
            store(source, inbox, take(source, 5))
            abandoned = take(source, 10)
            source.rest()
            source.rest()
            again = within(Limits.moment_seconds, lambda: take(source, 25))
            assert_in_order(harness, again)
            assert {message.id for message in again} >= {message.id for message in abandoned}
            store(source, inbox, again)
            source.rest()
            harness.send(messages(31, 1))
            store(source, inbox, within(Limits.moment_seconds, lambda: take(source, 1)))
        assert sorted(inbox.numbers()) == list(range(1, 32))

    def test_batches_may_be_received_before_earlier_ones_are_acknowledged(self, harness: SourceHarness) -> None:
        harness.send(messages(1, 30))
        inbox = Inbox()
        with opened(harness) as source:
            first, second = take(source, 10), take(source, 10)
            store(source, inbox, first)
            third = take(source, 10)
            store(source, inbox, second)
            # What it handed out it does not hand out again.
            assert receive(source, 10, 0.3) == []
            assert len({message.id for message in first + second + third}) == 30
        with opened(harness, inbox.positions) as source:
            again = within(Limits.moment_seconds, lambda: take(source, 10))
            assert sorted(numbers(again)) == sorted(numbers(third))

    def test_acknowledging_twice_or_after_a_reconnect_is_harmless(self, harness: SourceHarness) -> None:
        harness.send(messages(1, 40))
        inbox = Inbox()
        with opened(harness) as source:
            first, second = take(source, 10), take(source, 10)
            for _ in range(2):
                store(source, inbox, first)
            inbox.write(second)
            source.open(inbox.positions)
            for _ in range(2):
                source.ack(second)
            source.ack([])
            with Drainer(source, inbox) as drainer:
                drainer.wait_for(written=40)
                assert drainer.troubles == 0
        assert sorted(inbox.numbers()) == list(range(1, 41))

    def test_positions_count_and_not_what_was_acknowledged(self, harness: SourceHarness) -> None:
        needs(harness, harness.features.has_positions, "has_positions")
        harness.send(messages(1, 30))
        inbox = Inbox()
        with opened(harness) as source:
            received = take(source, 20)
            inbox.write(received[:10])
            behind = dict(inbox.positions)
            inbox.write(received[10:])
        # Not one acknowledgement arrived, and yet nothing comes twice.
        with opened(harness, inbox.positions) as source:
            store(source, inbox, take(source, 10))
            assert receive(source, 10, 0.3) == []
        assert sorted(inbox.numbers()) == list(range(1, 31))
        assert inbox.repeats == 0
        # Everything was acknowledged, and PostgreSQL was set back.
        with opened(harness, behind) as source:
            assert sorted(numbers(take(source, 20))) == list(range(11, 31))


class Trouble:
    def test_closing_is_harmless_at_any_time(self, harness: SourceHarness) -> None:
        source = harness.make_source()
        within(Limits.moment_seconds, source.close)
        source.open({})
        within(Limits.moment_seconds, source.close)
        within(Limits.moment_seconds, source.close)

    def test_a_source_that_is_not_open_says_so(self, harness: SourceHarness) -> None:
        harness.send(messages(1, 2))
        source = harness.make_source()
        with pytest.raises(NotConnected):
            receive(source, 1, 0)
        with opened(harness) as source:
            taken = take(source, 1)
            source.close()
            with pytest.raises(NotConnected):
                receive(source, 1, 0)
            with pytest.raises(NotConnected):
                source.ack(taken)
            source.rest()

    def test_a_source_opens_again_after_close_and_over_itself(self, harness: SourceHarness) -> None:
        inbox = Inbox()
        with opened(harness) as source:
            for number in (1, 2, 3):
                harness.send(messages(number, 1))
                store(source, inbox, take(source, 1))
                if number == 2:
                    source.close()
                source.open(inbox.positions)
        assert inbox.numbers() == [1, 2, 3]

    def test_closing_leaves_no_thread_and_no_descriptor(self, harness: SourceHarness) -> None:
        inbox = Inbox()
        for number in range(1, 6):
            harness.send(messages(number, 1))
            with opened(harness, inbox.positions) as source:
                store(source, inbox, take(source, 1))
                source.open(inbox.positions)
            if number == 1:
                before = holdings()
        # Threads of earlier tests may still be ending.
        assert all(now <= then for now, then in zip(holdings(), before, strict=True))

    def test_a_backend_that_is_down_is_not_connected_and_works_after_reopening(self, harness: SourceHarness) -> None:
        needs(harness, harness.features.uses_network, "uses_network")
        harness.send(messages(1, 5))
        inbox = Inbox()
        with opened(harness, timeout_ms=1000) as source:
            store(source, inbox, take(source, 2))
            harness.stop()
            try:
                with pytest.raises(NotConnected):
                    within(2 + Limits.moment_seconds, lambda: until_it_raises(lambda: receive(source, 10, 0.1)))
                for never_opened in (source, harness.make_source(timeout_ms=1000)):
                    with pytest.raises(NotConnected):
                        within(1 + Limits.moment_seconds, lambda: never_opened.open(inbox.positions))  # noqa: B023
                    within(Limits.moment_seconds, never_opened.close)
            finally:
                harness.start()
            source.open(inbox.positions)
            with Drainer(source, inbox) as drainer:
                drainer.wait_for(written=5)
        assert sorted(inbox.numbers()) == [1, 2, 3, 4, 5]

    def test_nothing_is_lost_when_the_backend_is_restarted_in_mid_flow(self, harness: SourceHarness) -> None:
        needs(harness, harness.features.uses_network, "uses_network")
        inbox = Inbox()
        with opened(harness, timeout_ms=2000) as source, Drainer(source, inbox) as drainer:
            for trouble, first in enumerate((1, 601), 1):
                harness.send(messages(first, 600))
                drainer.wait_for(written=first + 100)
                harness.stop()
                drainer.wait_for(troubles=trouble)
                harness.start()
                drainer.wait_for(written=first + 599)
        assert sorted(inbox.numbers()) == list(range(1, 1201))
        assert_in_order(harness, list(inbox.rows.values()))
        assert inbox.repeats == 0 or not harness.features.has_positions, "stored positions were not kept to"

    def test_wrong_credentials_are_a_clear_error_for_a_person(self, harness: SourceHarness) -> None:
        needs(harness, harness.features.needs_credentials, "needs_credentials")
        wrong = harness.wrong_credentials()
        source = harness.make_source(**wrong, timeout_ms=2000)
        with pytest.raises(ConfigError) as caught:
            within(2 + Limits.moment_seconds, lambda: source.open({}))
        within(Limits.moment_seconds, source.close)
        assert PIPELINE in str(caught.value)
        assert not any(str(value) in str(caught.value) for value in wrong.values())

    def test_a_missing_source_is_a_clear_error(self, harness: SourceHarness) -> None:
        needs(harness, harness.features.needs_source, "needs_source")
        missing = harness.missing_source()
        source = harness.make_source(**missing.overrides)
        with pytest.raises(ConfigError) as caught:
            within(Limits.patience_seconds, lambda: source.open({}))
        within(Limits.moment_seconds, source.close)
        assert all(word in str(caught.value) for word in (PIPELINE, missing.name, *missing.says))


class SourceSuite(WhatArrives, HowLongItWaits, WhatComesAgain, Trouble):
    """All of it."""
