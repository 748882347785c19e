"""First drains come some at a time, and none of them holds up the others for long."""

import pytest

from relay.process.metrics import PipelineLabels
from scheduler import starts as starts_module
from scheduler.starts import Starts
from scheduler.state import OwnedState, Spec


@pytest.fixture
def owned(monkeypatch: pytest.MonkeyPatch) -> dict[str, OwnedState]:
    monkeypatch.setattr(starts_module, "STARTS", 2)
    labels = PipelineLabels("p", "forward", "memory")
    owned = {name: OwnedState(Spec(name, "orders", 1, 1000, 1.0, labels)) for name in "abcde"}
    for state in owned.values():
        state.claimed(1, None, 0.0)
    return owned


@pytest.fixture
def starts(owned) -> Starts:
    starts = Starts()
    for name in owned:
        starts.due.set(name, 0.0)
    return starts


def emit(starts: Starts, owned: dict[str, OwnedState], now: float) -> list[str]:
    names = starts.pop(owned, now)
    for name in names:
        owned[name].emitted(now)
        starts.emitted(owned[name], now)
    return names


def test_the_next_start_when_one_has_ended(starts, owned):
    assert emit(starts, owned, 10.0) == ["a", "b"]
    assert emit(starts, owned, 10.1) == [] and starts.next_at(owned, 10.1) is None
    owned["b"].ended("idle", None, False, 10.2)
    assert starts.next_at(owned, 10.2) == 0.0
    assert emit(starts, owned, 10.2) == ["c"]


def test_one_that_goes_on_with_more_is_not_in_its_first_drain(starts, owned):
    emit(starts, owned, 10.0)
    owned["a"].ended("more", None, True, 10.1)
    owned["a"].emitted(10.1)
    starts.emitted(owned["a"], 10.1)
    assert emit(starts, owned, 10.1) == ["c"]


def test_one_that_is_not_taken_or_takes_long_keeps_the_others_for_a_moment_only(starts, owned):
    emit(starts, owned, 10.0)
    assert emit(starts, owned, 10.9) == []
    assert emit(starts, owned, 11.0) == ["c", "d"]


def test_one_that_is_not_owned_any_more_leaves_room(starts, owned):
    emit(starts, owned, 10.0)
    del owned["a"]
    assert emit(starts, owned, 10.1) == ["c"]
