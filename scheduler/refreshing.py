"""How many stream tables are refreshed at once: so many of all that the schedulers of a group own.

Each refresh has a slot, an advisory lock of this session, from when it is emitted until its end is seen. So the limit
holds whatever each of them owns, and a scheduler that is killed leaves no slot taken.
"""

import math
from collections.abc import Mapping

from scheduler.refresh_queue import RefreshQueue
from scheduler.session import Session
from scheduler.state import OwnedState

# How soon it looks once more for a slot that another scheduler may have released.
LOOK_SECONDS = 0.1


class Refreshing:
    """In one session, of `owned`, which changes meanwhile."""

    def __init__(self, session: Session, owned: Mapping[str, OwnedState], queue: RefreshQueue) -> None:
        self._session = session
        self._owned = owned
        self._queue = queue
        self._slots: dict[str, int | None] = {}
        """By pipeline: the lock; None if there is no limit."""
        self._limit = 1
        self._look_at = 0.0
        self._full = False
        """Whether others had all slots when it last asked."""
        self.schedulers = 1
        """That share the limit."""

    def next_at(self) -> float | None:
        """When one that is due may be refreshed; None if none is due."""
        at = self._queue.next_at()
        return at if at is None or self._room() > 0 else max(at, self._look_at)

    def take(self, now: float, most: int) -> list[str]:
        """Takes out those whose refresh is to be emitted now, the most overdue first; so many at most."""
        self._release()
        wanted = min(most, self._queue.ready(now))
        # Above its share it asks now and then, so that others who have less are not always too late.
        if now < self._look_at:
            wanted = min(wanted, self._room())
        if wanted <= 0:
            return []
        held = [key for key in self._slots.values() if key is not None]
        self._limit, keys = self._session.take_refresh_slots(wanted, held)
        self._look_at, self._full = now + LOOK_SECONDS, len(keys) < wanted
        names = self._queue.pop(now, len(keys))
        self._slots |= dict(zip(names, keys, strict=True))
        return names

    def _room(self) -> int:
        """How many it may ask for at once: up to its share of the limit."""
        return 0 if self._full else math.ceil(self._limit / max(1, self.schedulers)) - len(self._slots)

    def _release(self) -> None:
        over = [name for name in self._slots if (state := self._owned.get(name)) is None or state.phase != "draining"]
        keys = [key for name in over if (key := self._slots.pop(name)) is not None]
        if keys:
            self._session.release_refresh_slots(keys)
            self._full = False
