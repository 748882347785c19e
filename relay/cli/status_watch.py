"""Looking again and again, also while PostgreSQL is away: in a thread, so that the screen says meanwhile for how long.

A look that fails is told like any other, and the next one connects again. A server that hangs keeps only the thread.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Self

from relay.errors import NotConnected, RelayError
from relay.operations.base import Connection
from relay.operations.status import Look, look
from relay.process.retry_pause import RetryPause
from relay.process.stop import Stop

Seen = Look | RelayError
"""What a look showed, or why it showed nothing."""


class Looking:
    """A thread that looks until it is stopped. `next` gives what it saw, in order."""

    def __init__(
        self, connect: Callable[[], AbstractContextManager[Connection]], names: Sequence[str], interval_seconds: float
    ) -> None:
        self._connect = connect
        self._names = names
        self._interval_seconds = interval_seconds
        self._stop = Stop()
        # One only: a reader that is slower than the looks slows them down.
        self._seen: queue.Queue[Seen | _Ended] = queue.Queue(maxsize=1)
        self._worked = False

    def __enter__(self) -> Self:
        # It may hang in a connection: the process does not wait for it.
        threading.Thread(target=self._run, name="status", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def next(self, timeout_seconds: float) -> Seen | None:
        """What the next look showed; None if it is not over within this time.

        Raises what ended the looks: before the first that worked, whatever waiting does not help against; and bugs.
        """
        try:
            seen = self._seen.get(timeout=timeout_seconds)
        except queue.Empty:
            return None
        if isinstance(seen, _Ended):
            raise seen.error
        return seen

    def _run(self) -> None:
        pause = RetryPause()
        try:
            while not self._stop.is_set():
                try:
                    self._look(pause)
                except RelayError as error:
                    if not self._worked and not isinstance(error, NotConnected):
                        raise
                    self._tell(error)
                    self._stop.wait(max(self._interval_seconds, pause.next_seconds()))
        except Exception as error:  # noqa: BLE001  the other thread raises it
            self._tell(_Ended(error))

    def _look(self, pause: RetryPause) -> None:
        """Looks over one connection, until it is lost."""
        with self._connect() as connection:
            while not self._stop.is_set():
                self._tell(look(connection, self._names))
                self._worked = True
                pause.reset()
                self._stop.wait(self._interval_seconds)

    def _tell(self, seen: "Seen | _Ended") -> None:
        while not self._stop.is_set():
            try:
                self._seen.put(seen, timeout=1)
            except queue.Full:
                continue
            return


class _Ended:
    def __init__(self, error: Exception) -> None:
        self.error = error
