"""The forward loop into an inbox of the same database: PostgreSQL moves the messages, and no worker sees them.

Each batch and its settle are one statement. If PostgreSQL refuses one, the rest of the drain goes the ordinary way,
with dead letters and retries (`workers/joined.py`); the next drain moves again.
"""

import time
from collections.abc import Callable

from relay.drains.lease import DrainResult
from relay.drains.moving import Moved, Mover
from relay.drains.outbox import Bell, Settlement
from workers.batches import LINGER_SECONDS
from workers.publisher import Publisher


class MovingDrain:
    """Moves batch after batch. `ordinary` runs what is left of a drain that met something that cannot be moved."""

    def __init__(self, publisher: Publisher, mover: Mover, ordinary: Callable[[], DrainResult]) -> None:
        self._publisher = publisher
        self._mover = mover
        self._ordinary = ordinary
        self._batches = 0
        self._bell_armed = True

    def run(self) -> DrainResult:
        """Moves until the outbox is empty or the slice is over. Raises Fenced, NotConnected, ConfigError."""
        moved = self._move()
        while moved:
            if moved.messages and self._publisher.is_over():
                return DrainResult("more", self._publisher.progressed)
            # After a sleep the bell is armed still, so a single batch needs one look more, not two.
            if moved.messages and not (moved.is_last and self._batches == 1):
                moved = self._move(self._disarm())
                continue
            moved = self._look_again()
            if moved and not moved.messages:
                return DrainResult("again" if moved.open_publishers else "idle", self._publisher.progressed)
        return self._ordinary()

    def _disarm(self) -> Bell | None:
        """As in `ForwardDrain`, with the third batch: when the second is asked for, no one knows if there is one."""
        if not self._bell_armed or self._batches == 1:
            return None
        self._bell_armed = False
        return "disarm"

    def _look_again(self) -> Moved | None:
        """Nothing lies between offset and horizon: linger if busy, then arm the bell and look once more."""
        if self._batches > 1 and not self._publisher.stop.wait(LINGER_SECONDS):
            moved = self._move()
            if moved is None or moved.messages:
                return moved
        self._bell_armed = True
        return self._move("arm")

    def _move(self, bell: Bell | None = None) -> Moved | None:
        """Moves a batch, and counts it."""
        publisher, started = self._publisher, time.monotonic()
        moved = self._mover.move(publisher.offset_id, bell)
        if moved is None:
            return None
        publisher.offset_id = moved.offset_id
        if moved.first_at:
            self._batches += 1
            publisher.progressed = True
            publisher.count(moved.first_at, Settlement(moved.offset_id, moved.messages), time.monotonic() - started)
        return moved
