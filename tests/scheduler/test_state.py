"""One state pipeline: what it waits for after each event. Times are seconds from zero."""

import itertools
from typing import NamedTuple

import pytest

from relay.process.metrics import PipelineLabels
from scheduler.refreshes import TIMER_GRID_SECONDS
from scheduler.state import FIRST_AGAIN_SECONDS, OwnedState, Spec

SPEC = Spec("orders", "orders", 1, 30_000, 1.0, PipelineLabels("orders", "forward", "file"))


class Row(NamedTuple):
    """A row of the statement `drains_look`."""

    epoch: int
    number: int
    is_over: bool = True
    outcome: str = "idle"
    progressed: bool = True
    needs_operator: bool = False
    retry_seconds: float | None = None


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
    for row in (None, Row(7, 0), Row(6, 1), Row(6, 2), Row(7, 1, is_over=False)):
        assert draining.looked(row, 11.0) == "nothing"
        assert (draining.phase, draining.due_at) == ("draining", 40.0)
    assert draining.looked(Row(7, 1, outcome="failed", retry_seconds=5.0), 11.0) == "ended"
    assert (draining.phase, draining.due_at, draining.cause) == ("waiting", 16.0, "retry")
    assert draining.looked(Row(7, 1), 11.0) == "nothing", "its second notification means nothing"


def test_forged_ends_of_a_drain_are_looked_at_ever_less_often_and_the_true_one_soon(draining):
    """One notification in each millisecond of ten seconds, for each of 100 pipelines: few looks, at common times."""
    looks: set[float] = set()
    for start in range(100):
        now, at = 11.0 + start / 1000, None
        while now < 21.0:
            at = draining.look_at(now) if at is None else at
            if at <= now:
                looks.add(at)
                assert draining.looked(Row(7, 0), now) == "nothing"
                at = None
            now += 0.001
        assert draining.look_at(now) - now < 0.5
        assert draining.looked(Row(7, 1), now) == "ended"
        draining.emitted(now)
    assert len(looks) < 400
    assert draining.look_at(30.0) == 30.0, "a true end is seen at once again"


@pytest.mark.parametrize("phase", ["idle", "waiting", "draining"])
@pytest.mark.parametrize("is_over", [False, True])
def test_a_drain_that_ran_without_being_emitted_costs_an_epoch_and_not_a_lease(draining, phase, is_over):
    """A message that someone else put on the queue used up the number of a drain to come."""
    draining.phase = phase
    assert draining.looked(Row(7, 2, is_over), 11.0) == "foreign"
    assert (draining.phase, draining.due_at) == ("claiming", 11.0)


def test_the_end_of_the_drain_of_the_owner_before_frees_a_claim():
    state = OwnedState(SPEC)
    state.held(20.0, 1.0)
    assert state.looked(Row(3, 4, is_over=False), 2.0) == "nothing"
    assert state.looked(Row(3, 4), 2.0) == "free"
    assert (state.phase, state.due_at) == ("claiming", 2.0)
    assert state.looked(Row(3, 4), 2.0) == "nothing", "once"


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


def test_bells_that_lead_to_nothing_are_answered_ever_later_until_one_leads_to_something(draining):
    """Anyone can ring, and each drain costs a worker something."""
    pauses = []
    for _ in range(20):
        draining.ended("idle", None, False, 11.0)
        draining.rang(11.0, 100)
        pauses.append(draining.due_at - 11.0)
        draining.emitted(11.0)
    assert pauses[:5] == [0.0] * 5
    assert pauses[-1] == 1.0 and pauses == sorted(pauses)
    draining.ended("idle", None, True, 11.0)
    assert draining.rang(11.0) and draining.due_at == 11.0
    draining.emitted(11.0)
    draining.rang(11.5)
    draining.ended("idle", None, False, 12.0)
    assert draining.due_at == 12.0


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
    assert state.looked(Row(7, 1), 2.0) != "ended"


@pytest.mark.parametrize("phase", ["claiming", "waiting", "draining", "idle"])
def test_a_changed_configuration_is_claimed_again_whatever_the_phase(phase):
    state = OwnedState(SPEC, phase=phase, due_at=99.0)
    changed = Spec("orders", "orders", 2, 5_000, 1.0, SPEC.labels)
    state.reconfigured(changed, 3.0)
    assert (state.phase, state.due_at, state.spec.lease_ms) == ("claiming", 3.0, 5_000)


def test_a_bell_makes_a_first_drain_urgent_but_no_retry():
    state = OwnedState(SPEC)
    state.rang(1.0)
    state.claimed(5, None, 2.0)
    assert (state.starts, state.cause) == (False, "bell")
    for retry_seconds, cause in ((None, "bell"), (60.0, "config")):
        state = OwnedState(SPEC)
        state.claimed(5, retry_seconds, 2.0)
        assert state.starts
        state.rang(2.0)
        assert state.cause == cause
        state.precedes(2.0)
        assert state.cause == cause


def test_one_that_is_behind_precedes_other_first_drains():
    state = OwnedState(SPEC)
    state.claimed(5, None, 2.0)
    state.precedes(2.0)
    assert (state.starts, state.phase, state.cause) == (False, "waiting", "timer")
