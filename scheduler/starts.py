"""First drains. A scheduler that takes over thousands of pipelines does not put as many drains into the queue at once.

What is published meanwhile would wait behind them, since a queue is served in order.
"""

from collections.abc import Mapping

from scheduler.due import DueList
from scheduler.state import OwnedState

# In the queue or in work. The first drain of an idle pipeline takes milliseconds.
STARTS = 128
# One that takes longer, because it has much to deliver or no worker takes it, no longer keeps others from theirs.
WINDOW_SECONDS = 1.0


class Starts:
    """The pipelines that wait for their first drain, and those that are in it."""

    def __init__(self) -> None:
        self.due = DueList()
        self._emitted_at: dict[str, float] = {}

    def emitted(self, state: OwnedState, now: float) -> None:
        """A drain was emitted."""
        if state.starts:
            self._emitted_at[state.spec.name] = now

    def pop(self, owned: Mapping[str, OwnedState], now: float) -> list[str]:
        """Takes out those that may start now."""
        return self.due.pop(now, self._room(owned, now))

    def next_at(self, owned: Mapping[str, OwnedState], now: float) -> float | None:
        """When the next may start; None if there is none, or if one must end before."""
        at = self.due.next_at()
        return at if at is not None and self._room(owned, now) > 0 else None

    def _room(self, owned: Mapping[str, OwnedState], now: float) -> int:
        if len(self._emitted_at) >= STARTS:
            self._emitted_at = {
                name: at
                for name, at in self._emitted_at.items()
                if now - at < WINDOW_SECONDS and name in owned and owned[name].starts
            }
        return STARTS - len(self._emitted_at)
