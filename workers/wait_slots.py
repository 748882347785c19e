"""The right to wait on an idle source: a few drains at a time, in turn, so that each pipeline has its share of threads.

A drain that waits holds a thread. With more reverse pipelines than threads, those that find no free slot end at once
and are drained again, at most after their poll interval. They get a slot in the order in which they were first turned
away.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

# A pipeline that has not asked again for so long is not waiting any more.
FORGET_SECONDS = 5.0


class WaitSlots:
    """So many drains may wait at the same time."""

    def __init__(self, slots: int, others_wait: Callable[[], bool]) -> None:
        self._free = slots
        self._others_wait = others_wait
        self._turned_away: dict[str, tuple[int, float]] = {}
        """pipeline -> (its turn, when it last asked)."""
        self._turns = 0
        self._lock = Lock()

    @contextmanager
    def slot(self, pipeline: str) -> Iterator[bool]:
        """Whether the pipeline may wait, for the length of the context."""
        given = self._enter(pipeline)
        try:
            yield given
        finally:
            if given:
                with self._lock:
                    self._free += 1

    def is_contended(self) -> bool:
        """Whether a drain that waits should make room: another is queued without a thread, or was turned away."""
        if self._others_wait():
            return True
        with self._lock:
            self._forget()
            return bool(self._turned_away)

    def _enter(self, pipeline: str) -> bool:
        with self._lock:
            self._forget()
            turn, _ = self._turned_away.get(pipeline, (self._turns, 0.0))
            before = sum(other < turn for other, _ in self._turned_away.values())
            if self._free > before:
                self._free -= 1
                self._turned_away.pop(pipeline, None)
                return True
            if pipeline not in self._turned_away:
                self._turns += 1
            self._turned_away[pipeline] = (turn, time.monotonic())
            return False

    def _forget(self) -> None:
        oldest = time.monotonic() - FORGET_SECONDS
        for pipeline in [name for name, (_, asked_at) in self._turned_away.items() if asked_at < oldest]:
            del self._turned_away[pipeline]
