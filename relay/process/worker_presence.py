"""Worker processes give signs of life in the database, with the queues that they serve.

Those who look may be on another machine, and on another broker: that is then what is wrong.
"""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import dramatiq
from dramatiq.middleware import Middleware

from relay.database.connection import Connection
from relay.errors import RelayError
from relay.process.presence import BEAT_SECONDS, Presence
from relay.process.worker_health import lacking

LOOK_SECONDS = 1.0
# A sign of life gets its turn when the next drain ends; a stop does not wait for a PostgreSQL that is gone.
BEAT_WAIT_SECONDS = 30.0
LEAVE_WAIT_SECONDS = 2.0

Sessions = Callable[[float], AbstractContextManager[Connection]]
"""A session of the process, waited for for so many seconds: drains may hold all of them."""


class WorkerPresence(Middleware):
    """Beats in a thread of its own, and at once when a queue is lost or found."""

    def __init__(self, session: Sessions) -> None:
        self._session = session
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._presence: Presence | None = None

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        self._presence = Presence("workers")
        self._thread = threading.Thread(target=self._run, args=(broker, worker), name="presence", daemon=True)
        self._thread.start()

    def before_worker_shutdown(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        self._ended.set()

    def leave(self) -> None:
        """After the last drain has ended, and before the sessions are closed."""
        self._ended.set()
        if self._thread and self._presence:
            self._thread.join(LEAVE_WAIT_SECONDS)
            self._try(self._presence.leave, LEAVE_WAIT_SECONDS)

    def _run(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        assert self._presence is not None
        queues = sorted(worker.consumer_whitelist or broker.get_declared_queues())
        told: list[str] | None = None
        next_at = 0.0
        while not self._ended.is_set():
            missing = lacking(broker, worker)
            if missing != told or time.monotonic() >= next_at:
                beat = partial(self._presence.beat, queues=queues, lacking=missing)
                told = missing if self._try(beat, BEAT_WAIT_SECONDS) else None
                next_at = time.monotonic() + BEAT_SECONDS
            self._ended.wait(LOOK_SECONDS if told is not None else BEAT_SECONDS)

    def _try(self, write: Callable[[Connection], None], wait_seconds: float) -> bool:
        assert self._presence is not None
        try:
            with self._session(wait_seconds) as connection:
                write(connection)
        except RelayError as error:
            self._presence.tell(error)
            return False
        self._presence.tell(None)
        return True
