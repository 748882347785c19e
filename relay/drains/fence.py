"""The fence: the one place that checks whether a drain still has its pipeline.

The rule that binds every statement by which a drain writes: it names the pipeline, the epoch and the number of its
drain, and returns no row if another drain or a new owner took over since. Nothing else raises `Fenced`.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from relay.database.connection import Connection, database_errors, storable
from relay.drains.lease import DrainResult, DrainStart, Lease
from relay.errors import Fenced
from relay.masking import mask
from relay.models import Drain
from relay.sql import query

Cursor = psycopg.Cursor[Any]


class FencedSession:
    """The PostgreSQL session of one drain. One thread at a time."""

    config_changed = False
    """Whether the pipeline was changed since the drain began, as of the last statement that told."""

    def __init__(self, connection: Connection, lease: Lease, start: DrainStart) -> None:
        self.connection = connection
        self.lease = lease
        self.start = start
        self._parameters: dict[str, object] = {
            "pipeline": lease.drain.pipeline,
            "epoch": lease.drain.epoch,
            "number": lease.drain.number,
            "group_id": start.group_id,
            "outbox_id": start.outbox_id,
            "outbox": start.outbox,
            "inbox": start.inbox,
            "stream": lease.drain.pipeline,
        }

    def of_stream(self, pipeline: str) -> "FencedSession":
        """The same drain, at work on the stream table of that pipeline, which is refreshed with its own."""
        session = FencedSession(self.connection, self.lease, self.start)
        session._parameters["stream"] = pipeline
        return session

    def parameters(self, **more: object) -> dict[str, object]:
        """What a statement may name: the fence, the lease, what the drain works on, and more."""
        return {**self._parameters, "lease_seconds": self.lease.seconds, **more}

    def execute(self, name: str, **parameters: object) -> Cursor:
        """Executes a statement with these parameters. Raises what psycopg raises: see `database_errors`."""
        return self.connection.execute(query(name), self.parameters(**parameters))

    def execute_once(self, name: str, **parameters: object) -> Cursor:
        """`execute` of what reads messages: it is planned each time, and opens only the partitions that it needs."""
        return self.connection.execute(query(name), self.parameters(**parameters), prepare=False)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction that is durable when it ends. psycopg.Rollback rolls it back. Raises NotConnected."""
        # psycopg lets a Rollback through when there is no connection any more on which to roll back.
        with database_errors(), suppress(psycopg.Rollback), self.connection.transaction():
            self.connection.execute(query("durably"))
            yield

    def check(self, cursor: Cursor) -> Any:
        """The row that a fenced statement returned. Raises Fenced if there is none."""
        return _row(cursor, self.lease.drain)

    def check_revision(self, cursor: Cursor) -> Any:
        """`check` of a statement whose row starts with the revision of the pipeline."""
        row = self.check(cursor)
        self.config_changed = row[0] != self.start.revision
        return row

    def check_renewal(self, cursor: Cursor, sent_at: float) -> None:
        """`check_revision` of a statement that renewed the lease, sent at this `time.monotonic()` or later."""
        self.check_revision(cursor)
        self.lease.renewed(sent_at)


def end(connection: Connection, drain: Drain, result: DrainResult) -> None:
    """Gives the lease back and tells the owner. Raises Fenced, NotConnected."""
    with database_errors():
        _row(connection.execute(query("drain_end"), end_parameters(drain, result)), drain)


def end_parameters(drain: Drain, result: DrainResult) -> dict[str, object]:
    """Those of the statement `drain_end`."""
    return {
        "pipeline": drain.pipeline,
        "epoch": drain.epoch,
        "number": drain.number,
        "outcome": result.outcome,
        "failures": result.failures,
        "retry_seconds": result.retry_seconds,
        "progressed": result.progressed,
        "error_code": result.error_code,
        "error": result.error and storable(mask(result.error)),
        "needs_operator": result.needs_operator,
    }


def _row(cursor: Cursor, drain: Drain) -> Any:
    row = cursor.fetchone()
    if row is None:
        raise Fenced(f"drain {drain.number} of pipeline {drain.pipeline!r} was abandoned")
    return row
