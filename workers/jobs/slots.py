"""How many jobs may run at a time, for each way of running them, and how many are worth claiming now."""

import time
from dataclasses import dataclass, field
from typing import Literal

Way = Literal["loop", "thread", "process", "hand_off"]
"""Coroutines and requests on the loop; plain functions in threads; those that must be killable in processes; jobs that
become messages of another system, in batches."""

AHEAD_SECONDS = 0.05
MOST_AHEAD = 1000
_MEASURE_SECONDS = 0.05


@dataclass(slots=True)
class Slots:
    """Those of one way. Used in the loop only."""

    limit: int
    running: int = 0
    waiting: int = 0
    """Claimed, and not begun."""
    stuck: int = 0
    """Held by handlers whose time is over and that do not end."""
    ended: int = 0
    ahead: int = 0
    """How many are likely to begin within a moment beyond the free slots: slow jobs are never taken ahead."""
    _rate: float = 0.0
    _counted: int = 0
    _counted_at: float = field(default_factory=time.monotonic)

    @property
    def free(self) -> int:
        return self.limit - self.stuck - self.running

    @property
    def room(self) -> int:
        """How many are worth claiming."""
        return self.free + self.ahead - self.waiting

    @property
    def is_low(self) -> bool:
        """Whether half of the slots, or more, have nothing to run."""
        return not self.waiting and self.running <= self.limit // 2

    def measure(self, now: float) -> None:
        if (passed := now - self._counted_at) > _MEASURE_SECONDS:
            self._rate = 0.5 * self._rate + 0.5 * (self.ended - self._counted) / passed
            self._counted, self._counted_at = self.ended, now
            self.ahead = min(MOST_AHEAD, int(self._rate * AHEAD_SECONDS))
