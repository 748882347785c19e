"""The queues that a process has been told to look at. No I/O but the closing of a hand-off, in a thread of its own."""

import math
import threading
from collections.abc import Iterator

from workers.jobs.queues import Queue


class Held:
    """By name, and by what their bell says."""

    def __init__(self) -> None:
        self._by_name: dict[str, Queue] = {}
        self._by_outbox: dict[str, Queue] = {}

    def __iter__(self) -> Iterator[Queue]:
        """A copy: they may change meanwhile."""
        return iter(list(self._by_name.values()))

    def names(self) -> list[str]:
        return list(self._by_name)

    def put(self, queue: Queue) -> None:
        """One that is new, or was changed; it goes on with what its predecessor had to write."""
        before = self._by_name.get(queue.name)
        if before is not None and before is not queue:
            queue.look_at, queue.worked_at, queue.ended = before.look_at, before.worked_at, before.ended
            _close(before)
        self._by_name[queue.name] = self._by_outbox[f"jobs/{queue.name}"] = queue

    def remove(self, queue: Queue) -> None:
        del self._by_name[queue.name], self._by_outbox[f"jobs/{queue.name}"]
        _close(queue)

    def hungry(self) -> list[Queue]:
        """Those to be claimed from as soon as there is room."""
        return [queue for queue in self if queue.hungry]

    def late(self, now: float) -> list[Queue]:
        """Those whose drain's lease is to be renewed."""
        return [queue for queue in self if queue.drain is not None and now >= queue.renew_at]

    def have_news(self) -> bool:
        """Whether there is something of theirs to write, beside ends of jobs."""
        return any(queue.ended or queue.bell for queue in self)

    def next_at(self) -> float:
        """When one of them has something to do."""
        return min((queue.next_at() for queue in self), default=math.inf)

    def rang(self, outbox: str) -> bool:
        """Tells the queue with this bell, or all if it has no name; whether one of them has to act."""
        named = self._by_outbox.get(outbox)
        told = ([named] if named else []) if outbox else list(self)
        acts = [queue.rang() for queue in told]  # all are told, also after one that acts
        return any(acts)

    def changed(self, pipeline: str) -> bool:
        """Tells the queue of this pipeline, or all if it has no name; whether one of them has to act."""
        acts = [queue.changed() for queue in self if pipeline in ("", queue.pipeline)]
        return any(acts)


def _close(queue: Queue) -> None:
    if queue.hand_off is not None:
        threading.Thread(target=queue.hand_off.close, daemon=True).start()
