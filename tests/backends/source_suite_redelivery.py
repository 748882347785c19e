"""The scenarios of the source suite that are about what comes again, and trouble with the backend."""

import pytest

from relay.errors import ConfigError, NotConnected
from tests.backends.source_harness import PIPELINE, SourceHarness
from tests.backends.source_steps import (
    Drainer,
    Inbox,
    assert_in_order,
    messages,
    needs,
    number_of,
    numbers,
    opened,
    receive,
    store,
    take,
    until_it_raises,
)
from tests.backends.steps import Limits, holdings, within


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
            within(Limits.moment_seconds, tired.release)
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
            source.release()
            source.release()
            again = within(Limits.moment_seconds, lambda: take(source, 25))
            assert_in_order(harness, again)
            assert {message.id for message in again} >= {message.id for message in abandoned}
            store(source, inbox, again)
            source.release()
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
            source.release()

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
            for trouble in range(1, harness.restarts + 1):
                first = 600 * trouble - 599
                harness.send(messages(first, 600))
                drainer.wait_for(written=first + 100)
                harness.stop()
                drainer.wait_for(troubles=trouble)
                harness.start()
                drainer.wait_for(written=first + 599)
        assert sorted(inbox.numbers()) == list(range(1, 600 * harness.restarts + 1))
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
