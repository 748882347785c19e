"""How many stream tables are refreshed at once, and which of those that are due go first."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from relay.process.metrics import PipelineLabels
from relay.settings import Settings
from scheduler.refresh_queue import RefreshQueue
from scheduler.refreshes import Refreshes
from scheduler.refreshing import LOOK_SECONDS, Refreshing
from scheduler.session import Session
from scheduler.state import OwnedState, Spec
from tests.services.postgres import Database
from tests.waiting import wait_until


def due(
    queue: RefreshQueue, owned: dict[str, OwnedState], name: str, seconds: float, at: float, tier: str = "hot"
) -> None:
    """One of this interval is due since then."""
    labels = PipelineLabels(name, "stream", "stream")
    spec = Spec(name, "", 1, 10_000, seconds, labels, refreshes=Refreshes(seconds, tier=tier))
    owned[name] = OwnedState(spec, phase="waiting", due_at=at)
    queue.set(name, at)


def test_the_most_overdue_goes_first_counted_in_intervals_and_hot_before_cold():
    owned: dict[str, OwnedState] = {}
    queue = RefreshQueue(owned)
    due(queue, owned, "hourly", 3600.0, 10.0)
    due(queue, owned, "each_second", 1.0, 90.0)
    due(queue, owned, "cold", 10.0, 50.0, "cold")
    due(queue, owned, "hot", 10.0, 50.0)
    due(queue, owned, "later", 1.0, 101.0)
    assert queue.next_at() == 10.0
    assert queue.ready(100.0) == 4
    assert queue.pop(100.0, 2) == ["each_second", "hot"]
    queue.remove("cold")
    assert queue.pop(100.0, 9) == ["hourly"]
    assert queue.next_at() == 101.0
    assert queue.pop(102.0, 9) == ["later"]
    assert queue.next_at() is None


def test_one_that_becomes_due_again_is_taken_once():
    owned: dict[str, OwnedState] = {}
    queue = RefreshQueue(owned)
    for name in ("one", "two"):
        due(queue, owned, name, 1.0, 10.0)
    assert queue.pop(20.0, 1) == ["one"]
    due(queue, owned, "one", 1.0, 20.01)
    assert queue.pop(20.02, 9) == ["two", "one"]
    assert queue.pop(20.03, 9) == []


class Fleet:
    """Schedulers of a group, each with some stream tables that are due."""

    def __init__(self, stack: ExitStack, database: Database, group: str, schedulers: int) -> None:
        self.now = 100.0
        self.owned: list[dict[str, OwnedState]] = []
        self.refreshing: list[Refreshing] = []
        for number in range(schedulers):
            session = stack.enter_context(Session(Settings(postgres_url=database.url, relay_group_id=group)))
            owned: dict[str, OwnedState] = {}
            queue = RefreshQueue(owned)
            for stream in range(10):
                due(queue, owned, f"{group}.{number}.{stream}", 1.0, 50.0)
            refreshing = Refreshing(session, owned, queue)
            refreshing.schedulers = schedulers
            self.owned.append(owned)
            self.refreshing.append(refreshing)

    def take(self, scheduler: int, most: int = 32) -> int:
        """How many it emits now."""
        taken = self.refreshing[scheduler].take(self.now, most)
        for name in taken:
            self.owned[scheduler][name].emitted(self.now)
        return len(taken)

    def draining(self, scheduler: int) -> list[OwnedState]:
        return [state for state in self.owned[scheduler].values() if state.phase == "draining"]

    def end(self, scheduler: int) -> None:
        """The oldest of its refreshes has ended."""
        self.draining(scheduler)[0].ended("idle", None, True, self.now)


@pytest.fixture
def fleet(database: Database) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(stack, database, "default", 2)


def test_the_schedulers_of_a_group_share_the_limit(fleet):
    assert fleet.take(0) == 4, "there is no one else yet"
    assert fleet.take(1) == 0
    fleet.end(0)
    assert fleet.take(0) == 0, "it has its share, and others may wait"
    fleet.now += LOOK_SECONDS
    assert fleet.take(1) == 1
    for _ in range(6):
        fleet.end(0) if fleet.draining(0) else fleet.end(1)
        fleet.take(0)
        fleet.now += LOOK_SECONDS
        fleet.take(1)
        assert len(fleet.draining(0)) + len(fleet.draining(1)) <= 4


def test_a_scheduler_that_is_gone_leaves_its_slots(fleet):
    assert fleet.take(0) == 4
    fleet.refreshing[0]._session.close()

    def looked() -> bool:
        fleet.now += LOOK_SECONDS
        fleet.take(1)
        return len(fleet.draining(1)) == 4

    wait_until(looked, 20, "PostgreSQL has seen that its session is gone")


def test_other_groups_have_slots_of_their_own(fleet, database):
    fleet.take(0)
    with ExitStack() as stack:
        assert Fleet(stack, database, "other", 1).take(0) == 4


@pytest.mark.parametrize(("limit", "taken"), [(1, 1), (7, 7), (0, 10)])
def test_the_limit_is_a_setting(fleet, database, limit, taken):
    with database.connect() as owner:
        owner.execute("select tide.setting_set('stream_max_concurrent_refreshes', %s)", [str(limit)])
    assert fleet.take(0) == taken
    fleet.now += LOOK_SECONDS
    assert fleet.take(1) == (10 if limit == 0 else 0)


def test_what_waits_for_a_slot_is_looked_at_soon_and_not_all_the_time(fleet):
    fleet.take(0)
    assert fleet.refreshing[0].next_at() == fleet.now + LOOK_SECONDS
    fleet.end(0)
    fleet.end(0)
    fleet.end(0)
    assert fleet.take(0) == 1, "up to its share at once"
