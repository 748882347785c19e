"""When a stream table is due: counted from the start of its last refresh. Times are seconds from zero."""

from datetime import UTC, datetime, timedelta

import pytest

from relay.process.metrics import PipelineLabels
from scheduler.refreshes import TIMER_GRID_SECONDS, Clock, Cron, Refreshes
from scheduler.state import OwnedState, Spec

LABELS = PipelineLabels("streams.public.sums", "stream", "stream")


def stream(seconds: float = 10.0) -> OwnedState:
    """One that a worker refreshes since second 100."""
    refreshes = Refreshes(seconds)
    state = OwnedState(Spec("streams.public.sums", "", 1, 10_000, seconds, LABELS, refreshes=refreshes))
    state.claimed(7, None, 90.0)
    state.next_drain()
    state.emitted(100.0)
    return state


def test_the_next_refresh_is_due_an_interval_after_the_start_of_the_last():
    state = stream()
    state.ended("idle", None, True, 107.0)
    assert (state.phase, state.due_at) == ("idle", 110.0)


def test_one_that_took_longer_than_its_interval_is_followed_at_once():
    state = stream()
    assert (state.phase, state.due_at) == ("draining", 110.0), "not before it has ended, or its lease"
    state.ended("idle", None, True, 131.3)
    assert (state.phase, state.due_at) == ("idle", 131.3)


def test_a_look_that_finds_nothing_to_refresh_counts_as_a_refresh():
    state = stream()
    state.ended("idle", None, True, 101.0)
    state.polled(False, 110.0)
    assert (state.phase, state.due_at) == ("idle", 120.0)


def test_short_intervals_have_a_grid_of_their_own():
    state = stream(0.1)
    state.ended("idle", None, True, 100.02)
    assert state.due_at == pytest.approx(100.1)
    state = stream(0.9)
    state.ended("idle", None, True, 100.02)
    assert state.due_at == 101.0 and state.due_at % TIMER_GRID_SECONDS == 0


@pytest.mark.parametrize(("begun_seconds", "due_at"), [(4.0, 206.0), (25.0, 200.0)])
def test_a_new_owner_keeps_to_the_schedule(begun_seconds, due_at):
    state = stream()
    state.claimed(8, -3.0, 200.0, begun_seconds)
    assert (state.phase, state.due_at) == ("idle", due_at)


def test_a_new_owner_refreshes_at_once_what_was_never_refreshed_and_honours_the_pause_after_a_failure():
    state = stream()
    state.claimed(8, None, 200.0, None)
    assert (state.phase, state.due_at) == ("waiting", 200.0)
    state.claimed(9, 30.0, 200.0, 4.0)
    assert (state.phase, state.due_at) == ("waiting", 230.0)


def follower() -> OwnedState:
    """One that follows another, with a second between its refreshes; its last began at second 100."""
    refreshes = Refreshes(1.0, follows=("streams.public.sums",))
    state = OwnedState(Spec("streams.public.total", "", 1, 10_000, 1.0, LABELS, refreshes=refreshes))
    state.claimed(7, None, 90.0)
    state.emitted(100.0)
    state.ended("idle", None, True, 100.2)
    return state


def test_one_that_follows_another_looks_at_once_when_that_was_refreshed_and_else_rarely():
    state = follower()
    assert state.due_at >= 105.0
    assert state.stir(103.0)
    assert (state.phase, state.due_at) == ("idle", 103.0)
    state.polled(True, 103.0)
    assert (state.phase, state.due_at, state.cause) == ("waiting", 103.0, "schedule")


def test_its_own_refreshes_keep_their_pause():
    state = follower()
    assert state.stir(100.3)
    assert state.due_at == 101.0


def test_what_ends_while_it_is_refreshed_is_looked_at_after_that():
    state = follower()
    state.emitted(110.0)
    assert not state.stir(110.5)
    state.ended("idle", None, True, 112.0)
    assert (state.phase, state.due_at) == ("idle", 112.0)
    state.emitted(113.0)
    state.ended("idle", None, True, 114.0)
    assert state.due_at >= 119.0, "once"


def test_forged_ends_cost_ever_fewer_looks_and_a_true_one_is_soon_looked_at():
    state = follower()
    now, looks = 102.0, 0
    while now < 112.0:
        state.stir(now)
        if state.due_at <= now:
            state.polled(False, now)
            looks += 1
        now += 0.001
    assert looks < 60
    state.stir(now)
    assert state.due_at - now < 0.5
    state.polled(True, state.due_at)
    state.emitted(now)
    state.ended("idle", None, True, now)
    state.stir(now + 2.0)
    assert state.due_at == now + 2.0


def test_a_new_owner_of_one_that_follows_looks_at_once():
    state = follower()
    state.claimed(8, None, 200.0, 50.0)
    assert (state.phase, state.due_at) == ("idle", 200.0)
    state.claimed(9, None, 200.0, 0.4)
    assert state.due_at == pytest.approx(200.6)


NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def cron(expression: str, zone: str = "UTC") -> tuple[OwnedState, Clock]:
    """Its last refresh began at second 100, when PostgreSQL showed noon."""
    clock = Clock()
    clock.set(NOON, 100.0)
    refreshes = Refreshes(1.0, cron=Cron(expression, zone, clock))
    state = OwnedState(Spec("streams.public.sums", "", 1, 10_000, 1.0, LABELS, refreshes=refreshes))
    state.claimed(7, None, 90.0)
    state.emitted(100.0)
    state.ended("idle", None, True, 100.2)
    return state, clock


def test_a_cron_expression_is_due_at_its_next_tick_by_the_clock_of_postgresql():
    state, _ = cron("30 14 * * *", "Europe/Berlin")
    assert (state.phase, state.due_at) == ("idle", 100.0 + 30 * 60)
    state, _ = cron("*/10 * * * * *")
    assert state.due_at == 110.0


def test_a_tick_is_served_once_and_one_that_is_to_come_in_spite_of_a_refresh_before():
    state, clock = cron("0 13 * * *")
    noon_and_one = 100.0 + 3600
    state.emitted(noon_and_one - 0.1)
    state.ended("idle", None, True, noon_and_one - 0.05)
    assert state.due_at == noon_and_one
    state.polled(True, noon_and_one)
    state.emitted(noon_and_one)
    clock.set(NOON + timedelta(seconds=3598), noon_and_one)  # it was set back
    state.ended("idle", None, True, noon_and_one + 0.2)
    assert state.due_at == pytest.approx(noon_and_one + 2 + 86_400)


def test_a_tick_at_which_no_scheduler_ran_is_made_up_once():
    state, _ = cron("0 13 * * *")
    two = 100.0 + 7200
    state.claimed(8, None, two, 7200.0)
    assert (state.phase, state.due_at) == ("idle", two)
    state.claimed(8, None, two, 3000.0)
    assert state.due_at == 100.0 + 25 * 3600


def test_the_clock_of_postgresql_is_never_taken_to_be_further_than_it_is():
    clock = Clock()
    clock.set(NOON, 100.3)  # the answer took 0.3 seconds
    clock.set(NOON + timedelta(seconds=1), 101.1)
    clock.set(NOON + timedelta(seconds=2), 102.2)
    assert clock.shown(102.1) == NOON + timedelta(seconds=2)
    clock.set(NOON - timedelta(hours=1), 103.0)
    assert clock.when(NOON - timedelta(hours=1)) == 103.0
