"""When a stream table is refreshed: an interval after the start of the last refresh, at times of the clock, or after
those that it follows. Times are `time.monotonic()` seconds. No I/O.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from relay.jobs.cron import next_tick

# Timers fall on a common grid, so that one question to the database serves many pipelines.
TIMER_GRID_SECONDS = 0.25
# A stream table that follows others is told when they change. This look is for what went untold.
FOLLOWED_SECONDS = 5.0
# Of a clock that was set, or runs faster than ours.
CLOCK_SECONDS = 0.5
NEVER_SECONDS = 86_400.0


class Clock:
    """The time that PostgreSQL shows. An answer takes a while to come, so it is never shown too late a time."""

    def __init__(self) -> None:
        self._zero: datetime | None = None

    def set(self, shown: datetime, at: float) -> None:
        """PostgreSQL showed this time; the answer was here at `at`."""
        zero = shown - timedelta(seconds=at)
        # The later one came faster; one that is much earlier is of a clock that was set.
        if self._zero is None or zero > self._zero or self._zero - zero > timedelta(seconds=CLOCK_SECONDS):
            self._zero = zero

    @property
    def is_set(self) -> bool:
        return self._zero is not None

    def shown(self, at: float) -> datetime:
        """What it shows at `at`."""
        assert self._zero is not None
        return self._zero + timedelta(seconds=at)

    def when(self, shown: datetime) -> float:
        """When it shows this."""
        assert self._zero is not None
        return (shown - self._zero).total_seconds()


@dataclass(frozen=True, slots=True)
class Cron:
    """Times of the clock of a time zone."""

    expression: str
    time_zone: str
    clock: Clock

    def next(self, began_at: float, served: datetime | None, now: float) -> datetime | None:
        """The first tick after the last refresh began, and after the tick that it served; None if there is none."""
        began = self.clock.shown(max(began_at, now - NEVER_SECONDS * 366))
        return next_tick(self.expression, self.time_zone, max(began, served or began), seconds=True)


@dataclass(frozen=True, slots=True)
class Refreshes:
    """When a stream table is refreshed; or a group, whose first leads."""

    seconds: float
    """From the start of one refresh to that of the next, at least."""
    follows: tuple[str, ...] = ()
    """The pipelines whose ends make it due: of the stream tables that it reads, and that those read."""
    cron: Cron | None = None
    tier: str = "hot"
    others: tuple["Refreshes", ...] = ()
    """Of the others of a group, which is due when the first of it is."""

    @property
    def schedules(self) -> tuple["Refreshes", ...]:
        """Its own, and those of the others."""
        return self, *self.others

    def next_at(self, began_at: float, now: float) -> float:
        """When to look whether a refresh is due, after the one that began then; not before now. Not of a cron."""
        if self.follows:
            return on_grid(now + max(self.seconds, FOLLOWED_SECONDS), TIMER_GRID_SECONDS)
        due_at = began_at + self.seconds
        return now if due_at <= now else on_grid(due_at, self.seconds)


def on_grid(at: float, pause: float) -> float:
    """The next time of the common grid, or of one as fine as the pause."""
    grid = min(TIMER_GRID_SECONDS, pause)
    return math.ceil(at / grid) * grid
