"""The scheduler's one PostgreSQL session: its locks, its LISTEN, its statements.

All ownership hangs on it: when it is lost, every lock is gone, and another scheduler may own the pipelines already.
"""

import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple, Self
from uuid import UUID, uuid4

from psycopg.rows import dict_row, namedtuple_row

import relay
from relay.database import migrate, pooler
from relay.database.callers.refusals import refusals
from relay.database.connection import connect, database_errors, is_shared, storable
from relay.database.identity import read_identity
from relay.database.notifications import Listener
from relay.errors import ConfigError, NotConnected
from relay.models import Drain
from relay.operations.lag import Behind, read_lags
from relay.operations.locks import lock_key
from relay.process.stop import Stop
from relay.settings import Settings
from relay.sql import query
from scheduler.heard import Heard

_SHARED = (
    "a connection pooler gives each transaction another session of PostgreSQL, and ownership needs one that stays. "
    "Give relay-scheduler the URL of PostgreSQL itself, or a pool in session mode; see docs/operations/pgbouncer.md"
)


class PipelineLag(NamedTuple):
    """How far a pipeline is behind."""

    name: str
    messages: int
    """In ids: those rolled back count too."""
    seconds: float | None
    """Age of the oldest message; None if there is none among these ids."""
    publisher_seconds: float
    """How long the oldest open publisher of its outbox has been open; 0 if there is none."""


class Waiting(NamedTuple):
    """Drains of one queue that no worker has taken."""

    drains: int
    seconds: float
    """For how long the oldest has waited."""


NOTHING_WAITS: Mapping[str, Waiting] = MappingProxyType({})


class Session:
    """Every method raises NotConnected when the session is lost: close it then, and forget all ownership."""

    def __init__(self, settings: Settings) -> None:
        self.scheduler_id: UUID = uuid4()
        self._group = settings.relay_group_id
        self._connection = connect(settings, "tide-relay scheduler")
        self.heard = Heard()
        """What notifications said since the last turn."""
        self._listener = Listener(self._connection, self.heard.hear)
        try:
            migrate.require_current(self._connection)
            self._require_own_session(settings)
            with database_errors():
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

    def schedulers_alive(self) -> int:
        return int(self._run("scheduler_alive", relay_group_id=self._group)[0][0])

    def pipelines(self) -> list[dict[str, Any]]:
        with database_errors(), self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query("pipelines")).fetchall()

    def mark_invalid(self, name: str, revision: int, reason: str | None) -> None:
        self._run("pipeline_invalid", name=name, revision=revision, reason=reason)

    def unowned(self, names: list[str]) -> list[str]:
        return [row[0] for row in self._run("pipelines_unowned", names=names)]

    def drains(self, names: list[str]) -> dict[str, Any]:
        """What became of the last drain of each: see the statement `drains_look`."""
        return {row.pipeline: row for row in self._run("drains_look", names=names)}

    def rescue_jobs(self, silent_seconds: float) -> int:
        """How many jobs of workers that were silent for so long will run again."""
        return int(self._run("jobs_rescue", silent_seconds=silent_seconds)[0][0])

    def job_numbers(self, queues: list[str]) -> list[Any]:
        """For each: queue, due, scheduled, leased, dead, oldest_due_seconds, gaps."""
        return self._run("job_numbers", queues=queues)

    def inbox_dead_page(self, after_name: str, max_inboxes: int) -> list[Any]:
        """Of so many inboxes after a name, by name: name, dead (None: it could not be looked at)."""
        return self._run("inbox_dead_page", after_name=after_name, max_inboxes=max_inboxes)

    def schedules_due(self, queues: list[str]) -> list[Any]:
        """Of these queues: schedule, queue, cron, time_zone, missed, next_at, now."""
        return self._run("schedules_due", queues=queues)

    def fire_schedule(
        self,
        schedule: str,
        seen_at: datetime | None,
        next_at: datetime | None,
        ticks: Sequence[datetime],
        reason: str | None = None,
    ) -> list[int] | None:
        """The ids of the jobs; None if another scheduler has fired it, or it was changed.

        Raises Refused for what the queue refuses: the session is not lost for that.
        """
        parameters = {"seen_at": seen_at, "next_at": next_at, "ticks": list(ticks), "reason": reason}
        with refusals():
            [(ids,)] = self._run("schedule_fire", schedule=schedule, **parameters)
        return None if ids is None else list(ids)

    def maintained_seconds_ago(self) -> float | None:
        """When workers last completed a turn of maintenance; None if they never did."""
        [(seconds,)] = self._run("maintenance_age")
        return None if seconds is None else float(seconds)

    def started(self, drains: Sequence[Drain]) -> set[str]:
        """The pipelines of those of these drains that a worker has started."""
        parameters: dict[str, list[Any]] = {
            "names": [drain.pipeline for drain in drains],
            "epochs": [drain.epoch for drain in drains],
            "numbers": [drain.number for drain in drains],
        }
        return {row[0] for row in self._run("drains_begun", **parameters)}

    def take(self, names: list[str]) -> list[str]:
        """Tries the locks; returns the names that this scheduler owns from now on."""
        return [row[0] for row in self._run("ownership_take", names=names, keys=_keys(names))]

    def release(self, names: list[str]) -> None:
        self._run("ownership_release", names=names, keys=_keys(names))

    def raise_epochs(self, names: list[str]) -> list[Any]:
        """For each: pipeline, epoch (None while a lease runs), retry_seconds, lease_seconds."""
        return self._run("epoch_raise", names=names)

    def silence(self, drain: Drain) -> None:
        """Silences the bell of a pipeline whose drain is in the queue and has not started."""
        self._run("bell_silence", pipeline=drain.pipeline, epoch=drain.epoch, number=drain.number)

    def behind(self, names: list[str]) -> set[str]:
        return {row[0] for row in self._run("pipelines_behind", names=names)}

    def offsets_ahead(self) -> list[Any]:
        """Consumer groups that pass over new messages: outbox, consumer_group, offset_id, last_id."""
        return self._run("offsets_ahead")

    def lag(self, names: list[str]) -> list[PipelineLag]:
        """Of those that are behind."""
        found = self._run("pipelines_lag", names=names)
        with database_errors():
            behind = (Behind(row.outbox_id, row.offset_id, row.last_id) for row in found)
            lags = read_lags(self._connection, behind, count_limit=1)
        ages = dict(self._run("publisher_ages", outbox_ids=list({row.outbox_id for row in found}))) if found else {}
        return [
            PipelineLag(
                row.name,
                row.last_id - row.offset_id,
                lag.seconds if (lag := lags.get((row.outbox_id, row.offset_id))) else None,
                ages.get(row.outbox_id, 0.0),
            )
            for row in found
        ]

    def extend_outboxes(self) -> None:
        """Makes partitions ahead of need. Raises NotConnected with code `locked` if a publisher is in the way."""
        for (name,) in self._run("outboxes"):
            self._run("outbox_extend", name=name)

    def take_turn(self, interval_seconds: float) -> bool:
        """Whether this scheduler is the one that asks for maintenance now."""
        return bool(self._run("chore_take", interval_seconds=interval_seconds))

    def holds(self) -> list[Any]:
        """What is held for some time only: outbox, consumer_group, seconds_left and more."""
        return self._run("holds")

    def _run(self, statement: str, /, **parameters: Any) -> list[Any]:
        with database_errors(), self._connection.cursor(row_factory=namedtuple_row) as cursor:
            cursor.execute(query(statement), {"scheduler_id": self.scheduler_id, **parameters})
            return cursor.fetchall() if cursor.description else []


def _keys(names: Iterable[str]) -> list[int]:
    return [lock_key(name) for name in names]
