"""Stream tables that are due, in the order in which they are refreshed: the most overdue first. No I/O."""

from collections import deque
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache

from relay.jobs.cron import next_tick
from scheduler.due import DueList
from scheduler.refreshes import Refreshes
from scheduler.state import OwnedState

TIERS = ("hot", "warm", "cold")
# So long an order holds: where many wait, not each that is taken out costs a look at all of them.
RANKED_SECONDS = 0.1


class RefreshQueue:
    """Like a due list. Overdue is counted in intervals: a second is much for one of each second, and nothing for one
    of each day.
    """

    def __init__(self, owned: Mapping[str, OwnedState]) -> None:
        self._owned = owned
        self._later = DueList()
        self._ready: dict[str, float] = {}
        self._ranked: deque[str] = deque()
        self._ranked_at = 0.0

    def set(self, name: str, at: float) -> None:
        self.remove(name)
        self._later.set(name, at)

    def remove(self, name: str) -> None:
        self._later.remove(name)
        self._ready.pop(name, None)

    def next_at(self) -> float | None:
        """When the first is due; None if there is none."""
        return min(self._ready.values()) if self._ready else self._later.next_at()

    def ready(self, now: float) -> int:
        """How many are due."""
        self._ready |= {name: self._owned[name].due_at for name in self._later.pop(now)}
        return len(self._ready)

    def pop(self, now: float, most: int) -> list[str]:
        """Takes out the most overdue; so many at most."""
        names: list[str] = []
        while self.ready(now) and len(names) < most:
            if not self._ranked or now - self._ranked_at > RANKED_SECONDS:
                self._ranked = deque(sorted(self._ready, key=lambda name: urgency(self._owned[name], now)))
                self._ranked_at = now
            name = self._ranked.popleft()
            if self._ready.pop(name, None) is not None:
                names.append(name)
        return names


def urgency(state: OwnedState, now: float) -> tuple[float, int]:
    """The lowest goes first."""
    refreshes = state.spec.refreshes
    if refreshes is None:
        return 0.0, 0
    seconds = min(_interval(each, state.served) for each in refreshes.schedules)
    return -(now - state.due_at) / max(seconds, 0.001), TIERS.index(refreshes.tier)


def _interval(refreshes: Refreshes, served: datetime | None) -> float:
    if refreshes.cron and served:
        return _gap(refreshes.cron.expression, refreshes.cron.time_zone, served)
    return refreshes.seconds


@lru_cache(1024)
def _gap(expression: str, time_zone: str, tick: datetime) -> float:
    """How many seconds the next tick comes after one."""
    following = next_tick(expression, time_zone, tick, seconds=True)
    return (following - tick).total_seconds() if following else 1e9
