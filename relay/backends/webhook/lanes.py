"""Several requests at a time, and the order of each key kept.

Records of one key make a lane (those without a key make one together): they go one after the other. Lanes go side by
side; a free thread takes the first record of all that may go now. After a temporary failure nothing later than it
begins, because all of that would be sent again.
"""

import heapq
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor

from relay.backends.common.batch import Batch
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
        self._batch = Batch(len(keys))

    def run(self, send: Send, width: int, helpers: Executor | None) -> Batch:
        """Sends the batch, `width` records at a time, one of them in this thread. Raises what `send` raises."""
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
        self._batch.hold_back(self._left)
        return self._batch

    def _work(self, send: Send) -> None:
        lane: list[int] | None = None
        while (lane := self._next(lane)) is not None:
            index = lane[-1]
            failure = send(index)
            with self._lock:
                lane.pop()
                self._left.discard(index)
                if failure is not None:
                    self._batch.add((failure,))

    def _next(self, done: list[int] | None) -> list[int] | None:
        """Puts a lane back and takes the one that is first. No lane left means that others have those that remain."""
        with self._lock:
            if done:
                heapq.heappush(self._ready, done[-1])
                self._lanes[done[-1]] = done
            blocked_by = self._batch.blocked_by
            if not self._ready or (blocked_by is not None and self._ready[0] > blocked_by):
                return None
            return self._lanes.pop(heapq.heappop(self._ready))
