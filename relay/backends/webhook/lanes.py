"""Several requests at a time, and the order of each key kept.

Records of one key make a lane (those without a key make one together): they go one after the other. Lanes go side by
side; whoever is free takes the record that came first of all that may go now. After a temporary failure nothing
later than it begins, because all of that would be sent again.
"""

import heapq
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor

from relay.models import Failure

Send = Callable[[int], Failure | None]
"""Sends the record at this index; None when it was delivered."""


class Lanes:
    """One batch. `keys` has the key of each record."""

    def __init__(self, keys: Sequence[Hashable]) -> None:
        lanes: dict[Hashable, list[int]] = {}
        for index, key in enumerate(keys):
            lanes.setdefault(key, []).append(index)
        # Backwards, so that the next one is taken from the end.
        self._lanes = {indexes[0]: indexes[::-1] for indexes in lanes.values()}
        self._ready = sorted(self._lanes)
        self._lock = threading.Lock()
        self._left = set(range(len(keys)))
        self._held_up_by = len(keys)
        self._failures: dict[int, Failure] = {}

    def run(self, send: Send, width: int, helpers: Executor | None) -> dict[int, Failure]:
        """The failures by index. `width` at a time, one of them in this thread. Raises what `send` raises."""
        count = min(width, len(self._lanes)) - 1
        others = [helpers.submit(self._work, send) for _ in range(count)] if helpers else []
        try:
            self._work(send)
        finally:
            # All have ended when this returns, also when one of them raised.
            errors = [other.exception() for other in others]
        for error in errors:
            if error is not None:
                raise error
        for index in self._left:
            self._failures[index] = Failure(index, False, "not_sent", f"waits for record {self._held_up_by}")
        return self._failures

    def _work(self, send: Send) -> None:
        lane: list[int] | None = None
        while (lane := self._next(lane)) is not None:
            index = lane[-1]
            failure = send(index)
            with self._lock:
                lane.pop()
                self._left.discard(index)
                if failure is not None:
                    self._failures[index] = failure
                    if not failure.permanent:
                        self._held_up_by = min(self._held_up_by, index)

    def _next(self, done: list[int] | None) -> list[int] | None:
        """Puts a lane back and takes the one that is first. No lane left means that others have those that remain."""
        with self._lock:
            if done:
                heapq.heappush(self._ready, done[-1])
                self._lanes[done[-1]] = done
            if not self._ready or self._ready[0] > self._held_up_by:
                return None
            return self._lanes.pop(heapq.heappop(self._ready))
