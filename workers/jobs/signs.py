"""Signs of life: a thread of its own with a session of its own, whatever the handlers do to the engine's loop.

It also hears changes of queues, and that a running job is to be cancelled; and the bells of queues, where a pooler is
before the session that claims, but gives this one a session of its own. Anyone who can connect can send those: none is
more than a reason to look.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing

import structlog

from relay.database import pooler
from relay.database.connection import Connection, connect, database_errors, is_shared
from relay.database.notifications import Listener
from relay.errors import ConfigError, MigrationError, NotConnected
from relay.process.retry_pause import RetryPause
from relay.process.stop import Stop
from relay.settings import Settings
from relay.sql import query

log = structlog.get_logger(__name__)

NAME = "tide-relay jobs signs"
CANCEL_CHANNEL = "tide_job_cancel"
CONFIG_CHANNEL = "tide_relay_config"
PACE_SECONDS = 0.1
"""Between looks at what is to be cancelled."""


class Signs:
    """What it is given is called in its thread.

    `rang` with the name of an outbox, empty for any; `hears_bells` says whether it is to hear them; `changed` with that
    of a pipeline; `cancel` with (lease, job); `late` when others may have taken this worker for dead; `lost` with its
    number when they did.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        rang: Callable[[str], None],
        hears_bells: Callable[[], bool],
        changed: Callable[[str], None],
        cancel: Callable[[Sequence[tuple[int, int]]], None],
        late: Callable[[], None],
        lost: Callable[[int], None],
    ) -> None:
        self._settings = settings
        self._rang, self._changed, self._cancel, self._late, self._lost = rang, changed, cancel, late, lost
        self._hears_bells = hears_bells
        self._every_seconds = settings.job_lease_seconds / 3
        self._stop = Stop()
        self._pause = RetryPause()
        self._look = False
        self._worker: int | None = None
        self._beat_at = 0.0
        self._thread = threading.Thread(target=self._run, name="job-signs", daemon=True)
        self.stopping = False
        self.is_listening = False
        """Whether bells are heard here: not if they are heard elsewhere, not behind a pooler that shares sessions, and
        not while the session is lost."""

    def follow(self, worker: int) -> None:
        """From now on it gives the signs of that worker."""
        self._beat_at, self._worker = time.monotonic(), worker
        if not self._thread.ident:
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.ident:
            self._thread.join(self._settings.connect_timeout_seconds + 1)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with closing(connect(self._settings, NAME)) as connection:
                    self._give(connection)
            except (NotConnected, ConfigError, MigrationError) as error:
                log.warning("no sign of life can be given for the jobs of this process", reason=str(error))
                self._deaf()
                self._stop.wait(self._pause.next_seconds())

    def _deaf(self) -> None:
        if self.is_listening:
            self.is_listening = False
            self._rang("")

    def _give(self, connection: Connection) -> None:
        listener = None
        if not (pooler.is_between(connection) and is_shared(connection, self._settings)):
            listener = Listener(connection, self._heard)
            with database_errors():
                connection.execute(query("engine_listen"))
                if self._hears_bells():
                    connection.execute(query("engine_hear"))
                    self.is_listening = True
                    self._rang("")  # what rang before was not heard
        next_at = beat_at = 0.0
        while not self._stop.is_set():
            # Anyone can say that something is to be cancelled: the first time it is looked at once.
            due_at = min(next_at, beat_at + PACE_SECONDS) if self._look else next_at
            if (now := time.monotonic()) >= due_at:
                self._look = False
                self._beat(connection)
                beat_at, next_at = now, now + self._every_seconds
                continue
            seconds = due_at - now
            if listener is None:
                self._stop.wait(min(seconds, 1.0))
            else:
                with database_errors():
                    listener.wait(seconds, self._stop)

    def _beat(self, connection: Connection) -> None:
        worker, before = self._worker, self._beat_at
        sent_at = time.monotonic()
        with database_errors():
            row = connection.execute(query("engine_beat"), {"worker": worker, "stopping": self.stopping}).fetchone()
        assert row is not None
        assert worker is not None
        alive, leases, jobs = row
        self._beat_at = sent_at
        self._pause.reset()
        if not alive:
            self._lost(worker)
        elif sent_at - before > self._settings.job_lease_seconds:
            self._late()
        if leases:
            self._cancel(list(zip(leases, jobs, strict=True)))

    def _heard(self, channel: str, name: str | None) -> None:
        if channel == CANCEL_CHANNEL:
            self._look = self._look or name in (None, "", str(self._worker))
        elif channel == CONFIG_CHANNEL:
            self._changed(name or "")
        elif name:
            self._rang(name)
