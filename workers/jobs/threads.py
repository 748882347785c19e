"""Threads for handlers that are plain functions.

They are daemons: a handler that does not end must not keep the process from ending, as the threads of the standard
library's pool would.
"""

import contextvars
import queue
import threading
from collections.abc import Callable

Task = Callable[[], None]


class Threads:
    """So many tasks at a time. A task handles its own exceptions."""

    def __init__(self, number: int, name: str) -> None:
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._number = number
        self._name = name
        self._started = 0
        self._idle = 0
        self._lock = threading.Lock()

    def submit(self, task: Task) -> None:
        """Runs it in a thread, in a copy of the caller's context."""
        context = contextvars.copy_context()
        self._tasks.put(lambda: context.run(task))
        with self._lock:
            if self._idle == 0 and self._started < self._number:
                self._started += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()

    def close(self) -> None:
        """Idle threads end; the others when their task does."""
        for _ in range(self._started):
            self._tasks.put(None)

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            task = self._tasks.get()
            with self._lock:
                self._idle -= 1
            if task is None:
                return
            task()
