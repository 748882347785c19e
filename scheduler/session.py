"""The scheduler's one PostgreSQL session: its locks, its LISTEN, its membership.

All ownership hangs on it: when it is lost, every lock is gone, and another scheduler may own the pipelines already.
"""

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Self
from uuid import UUID, uuid4

import relay
from relay.database import migrate, pooler
from relay.database.connection import connect, database_errors, is_shared, storable
from relay.database.identity import read_identity
from relay.database.notifications import Listener
from relay.errors import ConfigError, NotConnected
from relay.process.stop import Stop
from relay.settings import Settings
from relay.sql import query
from scheduler.heard import Heard
from scheduler.refreshes import Clock
from scheduler.statements import Statements

_SHARED = (
    "a connection pooler gives each transaction another session of PostgreSQL, and ownership needs one that stays. "
    "Give relay-scheduler the URL of PostgreSQL itself, or a pool in session mode; see docs/operations/pgbouncer.md"
)


class Waiting(NamedTuple):
    """Drains of one queue that no worker has taken."""

    drains: int
    seconds: float
    """For how long the oldest has waited."""


NOTHING_WAITS: Mapping[str, Waiting] = MappingProxyType({})


class Session(Statements):
    """Every method raises NotConnected when the session is lost: close it then, and forget all ownership."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(connect(settings, "tide-relay scheduler"), uuid4())
        self._group = settings.relay_group_id
        self.heard = Heard()
        """What notifications said since the last turn."""
        self.clock = Clock()
        """Set by each heartbeat."""
        self._listener = Listener(self._connection, self.heard.hear)
        try:
            migrate.require_current(self._connection)
            self._require_own_session(settings)
            with database_errors():
                # Its statements are the same all day, and reading messages is not among them.
                self._connection.execute(query("session_plans"), {"mode": "auto"})
                self._connection.execute(query("listen"))
            self._run(
                "scheduler_join",
                relay_group_id=self._group,
                host=socket.gethostname(),
                pid=os.getpid(),
                version=relay.__version__,
            )
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases everything; signs off if the session is alive."""
        try:
            self._run("scheduler_leave")
        except NotConnected:
            pass  # another scheduler removes the row when it finds the session gone
        finally:
            self._connection.close()

    def wait(self, stop: Stop, timeout_seconds: float) -> Heard:
        """What was heard, as soon as anything was; nothing after the timeout or when `stop` is set."""
        with database_errors():
            self._listener.wait(0.0 if self.heard else timeout_seconds, stop)
        return self.heard.take()

    def identity(self) -> str:
        """Of the database."""
        return read_identity(self._connection)

    def require_schema(self) -> None:
        """Raises MigrationError if the schema has become one that this version cannot work with."""
        migrate.require_current(self._connection)

    def heartbeat(self, waiting: Mapping[str, Waiting] = NOTHING_WAITS, broker_trouble: str | None = None) -> None:
        """Says that this one is alive, which drains of it wait for a worker, and what is wrong with its broker.

        Raises NotConnected if another scheduler declared this one dead, or a pooler gave it another session.
        """
        facts = json.dumps({queue: found._asdict() for queue, found in waiting.items()})
        trouble = None if broker_trouble is None else storable(broker_trouble)
        beat = self._run("scheduler_heartbeat", waiting=facts, trouble=trouble)
        if not beat:
            raise NotConnected("another scheduler ended this one, which had been silent for too long", code="evicted")
        self.clock.set(beat[0].now, time.monotonic())
        if beat[0].backend_pid != self._server_process:
            raise NotConnected(f"its session was given to others: {_SHARED}", code="session")

    def _require_own_session(self, settings: Settings) -> None:
        """Raises ConfigError if a pooler shares sessions: other programs would get the same locks."""
        with database_errors():
            if pooler.is_between(self._connection) and is_shared(self._connection, settings):
                raise ConfigError(f"this scheduler would not own what it takes: {_SHARED}")
            self._server_process = pooler.server_process(self._connection)

    def evict(self, silent_seconds: float) -> list[UUID]:
        """Ends the sessions of frozen schedulers, forgets dead ones; returns the ids of the frozen."""
        return [row[0] for row in self._run("scheduler_evict", silent_seconds=silent_seconds)]

    def take_refresh_slots(self, most: int, held: Sequence[int]) -> tuple[int, list[int | None]]:
        """The limit of the group, and slots for refreshes that are ours now, beside those held; None: no limit."""
        rows = self._run("refresh_slots_take", group=self._group, most=most, held=list(held))
        return rows[0].refreshes, [row.key for row in rows if row.taken]

    def release_refresh_slots(self, keys: Sequence[int]) -> None:
        self._run("slots_release", keys=list(keys))

    def schedulers_alive(self) -> int:
        return int(self._run("scheduler_alive", relay_group_id=self._group)[0][0])
