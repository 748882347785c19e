"""What a scheduler does every so often. A long chore works in pieces, and bells are heard between them."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

Pieces = Iterator[None]
"""A chore that yields after each piece. A piece takes some milliseconds at most."""

_T = TypeVar("_T")

# So long a turn goes on with pieces. Bells and ends wait meanwhile.
TURN_SECONDS = 0.005


@dataclass(slots=True)
class Chore:
    """Begun again so many seconds after it has ended."""

    interval_seconds: float
    run: Callable[[], Pieces | None]
    """Does it whole, or returns the pieces."""
    next_at: float = 0.0
    """In `time.monotonic()` seconds. While it runs: when it must be begun once more, because something has changed."""

    def hasten(self, at: float) -> None:
        self.next_at = min(self.next_at, at)


class Chores:
    """Of one loop. `moved` is called before each piece."""

    def __init__(self, chores: Sequence[Chore], moved: Callable[[], None]) -> None:
        self._chores = chores
        self._moved = moved
        self._running: deque[tuple[Chore, Pieces]] = deque()

    def turn(self) -> None:
        """Begins what is due, and goes on with what is not done: a piece at least, each chore in its turn."""
        for chore in self._chores:
            if time.monotonic() >= chore.next_at and all(chore is not other for other, _ in self._running):
                self._begin(chore)
        until = time.monotonic() + TURN_SECONDS
        while self._running:
            chore, pieces = self._running.popleft()
            self._moved()
            if next(pieces, self) is self:
                self._done(chore)
            else:
                self._running.append((chore, pieces))
            if time.monotonic() >= until:
                break

    def next_at(self) -> float:
        """When the next turn has something to do."""
        return 0.0 if self._running else min(chore.next_at for chore in self._chores)

    def _begin(self, chore: Chore) -> None:
        self._moved()
        chore.next_at = math.inf
        if (pieces := chore.run()) is None:
            self._done(chore)
        else:
            self._running.append((chore, pieces))

    def _done(self, chore: Chore) -> None:
        chore.hasten(time.monotonic() + chore.interval_seconds)


def pages(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """So many at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
