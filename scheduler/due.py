"""The due list: which pipeline wants attention next, and when. Times are `time.monotonic()` seconds."""

import heapq
import math


class DueList:
    """One time for each name; a new one replaces the old one."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __contains__(self, name: str) -> bool:
        return name in self._times

    def set(self, name: str, at: float) -> None:
        self._times[name] = at
        heapq.heappush(self._heap, (at, name))

    def remove(self, name: str) -> None:
        self._times.pop(name, None)

    def clear(self) -> None:
        self._times.clear()
        self._heap.clear()

    def next_at(self) -> float | None:
        """When the first name is due; None if there is none."""
        self._drop_replaced()
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float, most: float = math.inf) -> list[str]:
        """Takes out the names that are due, the longest overdue first; so many at most."""
        names: list[str] = []
        while len(names) < most and (at := self.next_at()) is not None and at <= now:
            name = heapq.heappop(self._heap)[1]
            del self._times[name]
            names.append(name)
        return names

    def _drop_replaced(self) -> None:
        while self._heap and self._times.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
