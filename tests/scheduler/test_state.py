"""One state pipeline: what it waits for after each event. Times are seconds from zero."""

import itertools

import pytest

from relay.process.metrics import PipelineLabels
from scheduler.state import FIRST_AGAIN_SECONDS, TIMER_GRID_SECONDS, OwnedState, Spec

SPEC = Spec("orders", "orders", 1, 30_000, 1.0, PipelineLabels("orders", "forward", "file"))


@pytest.fixture
def draining() -> OwnedState:
    state = OwnedState(SPEC)
    state.claimed(7, None, 0.0)
    state.next_drain()
    state.emitted(10.0)
    return state


def test_a_new_pipeline_is_claimed_before_anything_else():
    state = OwnedState(SPEC)
    assert (state.phase, state.due_at) == ("claiming", 0.0)
    assert not state.rang(1.0)
    state.claimed(7, None, 2.0)
    assert (state.phase, state.due_at) == ("waiting", 2.0)


def test_a_claimed_pipeline_honours_the_retry_time_that_its_last_drain_left():
    state = OwnedState(SPEC)
    state.claimed(7, 5.0, 2.0)
    assert state.due_at == 7.0
    state.claimed(8, -5.0, 2.0)
    assert state.due_at == 2.0


def test_a_lease_that_still_runs_is_waited_for():
    state = OwnedState(SPEC)
    state.held(4.0, 1.0)
    assert state.phase == "claiming"
    assert state.due_at == pytest.approx(5.01)
    state.held(-1.0, 1.0)
    assert state.due_at > 1.0, "never at once: that would be a busy loop"


def test_numbers_of_drains_grow_within_an_epoch():
    state = OwnedState(SPEC)
    state.claimed(7, None, 0.0)
    first, second = state.next_drain(), state.next_drain()
    assert (first.epoch, first.number, first.lease_ms) == (7, 1, 30_000)
    assert (second.epoch, second.number) == (7, 2)
    state.claimed(8, None, 0.0)
    assert (state.next_drain().epoch, state.number) == (8, 1)


def test_a_drain_is_looked_for_when_its_lease_is_over(draining):
    assert (draining.phase, draining.due_at) == ("draining", 40.0)
    draining.claimed(8, None, 40.0)
    assert (draining.phase, draining.cause) == ("waiting", "lost")


def test_only_the_end_of_the_drain_in_flight_counts(draining):
    assert draining.is_current(7, 1)
    assert not draining.is_current(7, 0)
    assert not draining.is_current(6, 1)
    draining.ended("idle", None, True, 11.0)
    assert not draining.is_current(7, 1), "its second notification means nothing"


def test_an_idle_pipeline_sleeps_until_the_timer_which_keeps_to_a_grid(draining):
    draining.ended("idle", None, True, 11.1)
    assert draining.phase == "idle"
    assert draining.due_at >= 12.1
    assert draining.due_at % TIMER_GRID_SECONDS == 0


def test_a_bell_wakes_a_sleeping_pipeline_at_once(draining):
    draining.ended("idle", None, True, 11.0)
    assert draining.rang(11.2)
    assert (draining.phase, draining.due_at, draining.cause) == ("waiting", 11.2, "bell")


def test_a_bell_that_rings_during_a_drain_is_answered_after_it(draining):
    assert not draining.rang(10.5)
    draining.ended("idle", None, False, 11.0)
    assert (draining.phase, draining.due_at, draining.cause) == ("waiting", 11.0, "bell")
    draining.emitted(11.0)
    draining.ended("idle", None, False, 12.0)
    assert draining.phase == "idle", "once"


def test_a_bell_does_not_cut_a_retry_short(draining):
    draining.ended("failed", 5.0, False, 11.0)
    assert (draining.phase, draining.due_at, draining.cause) == ("waiting", 16.0, "retry")
    assert not draining.rang(12.0)
    assert draining.due_at == 16.0


def test_more_is_drained_at_once(draining):
    draining.ended("more", None, True, 11.0)
    assert (draining.phase, draining.due_at, draining.cause) == ("waiting", 11.0, "more")


def test_looking_again_backs_off_to_the_poll_interval_until_something_moves(draining):
    pauses = []
    for _ in range(12):
        draining.ended("again", None, False, 20.0)
        pauses.append(draining.due_at - 20.0)
        draining.emitted(20.0)
    assert pauses[0] == pytest.approx(FIRST_AGAIN_SECONDS)
    assert all(later == pytest.approx(min(1.0, earlier * 2)) for earlier, later in itertools.pairwise(pauses))
    assert pauses[-1] == pytest.approx(1.0)
    draining.ended("again", None, True, 20.0)
    assert draining.due_at - 20.0 == pytest.approx(FIRST_AGAIN_SECONDS)


def test_a_bell_cuts_looking_again_short(draining):
    draining.ended("again", None, False, 20.0)
    assert draining.rang(20.001)
    assert draining.due_at == 20.001


def test_the_timer_wakes_only_what_has_something_to_read(draining):
    draining.ended("idle", None, True, 11.0)
    draining.polled(False, 12.0)
    assert draining.phase == "idle" and draining.due_at >= 13.0
    draining.polled(True, 13.0)
    assert (draining.phase, draining.due_at, draining.cause) == ("waiting", 13.0, "timer")


def test_a_drain_that_the_broker_may_have_or_not_is_ruled_out_by_a_new_epoch():
    state = OwnedState(SPEC)
    state.claimed(7, None, 0.0)
    state.next_drain()
    state.doubted(1.0)
    assert (state.phase, state.due_at) == ("claiming", 1.0)
    assert not state.is_current(7, 1)


@pytest.mark.parametrize("phase", ["claiming", "waiting", "draining", "idle"])
def test_a_changed_configuration_is_claimed_again_whatever_the_phase(phase):
    state = OwnedState(SPEC, phase=phase, due_at=99.0)
    changed = Spec("orders", "orders", 2, 5_000, 1.0, SPEC.labels)
    state.reconfigured(changed, 3.0)
    assert (state.phase, state.due_at, state.spec.lease_ms) == ("claiming", 3.0, 5_000)
