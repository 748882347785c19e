"""How much is taken on at a time: requests a second of one sender, requests and bytes of all."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MOST_REQUESTS = 1024
MOST_BYTES = 64 * 1024 * 1024


class RateLimit:
    """So many requests a second, and as many at once after a pause (at least one). One thread at a time."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._most = max(1.0, per_second)
        self._tokens = self._most
        self._counted_at = clock()

    def take(self) -> int:
        """0 if one more may come, else the whole seconds after which it may."""
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._counted_at) * self._per_second)
        self._counted_at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0
        return max(1, math.ceil((1 - self._tokens) / self._per_second))


class Place:
    """One request's part of the room."""

    def __init__(self, room: "Room") -> None:
        self._room = room
        self.bytes = 0

    def grow(self, size: int) -> bool:
        """Whether so many more bytes fit."""
        if self._room.bytes + size > self._room.most_bytes:
            return False
        self.bytes += size
        self._room.bytes += size
        return True


class Room:
    """What is held in memory at a time. One thread at a time."""

    def __init__(self, most_requests: int = MOST_REQUESTS, most_bytes: int = MOST_BYTES) -> None:
        self.most_requests, self.most_bytes = most_requests, most_bytes
        self.requests = 0
        self.bytes = 0

    @contextmanager
    def place(self) -> Iterator[Place | None]:
        """For one more request; None if it is full."""
        if self.requests >= self.most_requests:
            yield None
            return
        place = Place(self)
        self.requests += 1
        try:
            yield place
        finally:
            self.requests -= 1
            self.bytes -= place.bytes
