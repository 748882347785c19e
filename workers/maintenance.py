"""Maintenance of the database by the fleet: removes what is settled and old, and consumers that are dead.

Every step is its own transaction, bounded in rows, and harmless at any time, even twice at once. What is not done in
this turn is done in a later one: so a turn may be lost, cut short, or find a lock in its way.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
import structlog
from psycopg.rows import namedtuple_row

from relay.database.connection import READ_ONLY, Connection, custom_plans, database_errors, pooled
from relay.errors import NotConnected, RelayError
from relay.operations.pages import PAGE_OUTBOXES
from relay.process.metrics.workers import worker_metrics
from relay.reasons import reason_of
from relay.sql import query
from workers.resources import Resources

log = structlog.get_logger(__name__)

# A thread that does maintenance drains nothing meanwhile.
TURN_SECONDS = 10.0
MAX_ROWS = 10_000
# A session of PostgreSQL keeps what it knows of each table that it has opened, some 100 kB an outbox, until it ends.
MAX_KNOWN_OUTBOXES = 500


@dataclass(slots=True)
class Counts:
    """What a turn has done."""

    outboxes: int = 0
    """That were asked whether there is something to do."""
    truncated: int = 0
    """Partitions of outboxes emptied."""
    dropped: int = 0
    """Partitions, emptied in an earlier turn, that are gone."""
    lost: int = 0
    """Messages removed that a consumer group had not settled."""
    inbox_rows: int = 0
    dead_letters: int = 0
    history: int = 0
    stream_changes: int = 0
    """Rows that told stream tables of changes which all have seen."""
    consumers: int = 0
    """Dead ones removed."""
    busy: int = 0
    """Outboxes of which something was left because a transaction was in the way."""
    failed: int = 0
    """Steps that PostgreSQL refused."""


def run(resources: Resources) -> None:
    """The turn that a scheduler asked for, on a session of the worker's pool. Raises nothing but bugs."""
    try:
        with database_errors(), pooled(resources.pool) as connection:
            if not connection.execute(query("maintenance_begin")).fetchone():
                return
            with custom_plans(connection):
                counts = run_once(connection, stopping=resources.stop.is_set)
            if not (counts.busy or counts.failed or resources.stop.is_set()):
                connection.execute(query("maintenance_done"))
            if counts.outboxes > MAX_KNOWN_OUTBOXES:
                connection.close()  # the pool opens another
    except RelayError as error:
        log.error("maintenance abandoned until the next turn", reason=str(error))
    else:
        log.debug("maintenance", **{name: getattr(counts, name) for name in Counts.__slots__})


def run_once(
    connection: Connection, *, seconds: float = TURN_SECONDS, stopping: Callable[[], bool] = lambda: False
) -> Counts:
    """One turn, on a session in autocommit. Starts no step after `seconds`, or when `stopping()`.

    Raises NotConnected when the session is lost; what PostgreSQL refuses is logged, and the next step is taken.
    """
    turn = _Turn(connection, time.monotonic() + seconds, stopping)
    turn.reap()
    turn.dead_letters()
    turn.history()
    turn.streams()
    for step in turn.steps():
        step()
    return turn.counts


class _Turn:
    def __init__(self, connection: Connection, until: float, stopping: Callable[[], bool]) -> None:
        self._connection = connection
        self._until = until
        self._stopping = stopping
        self.counts = Counts()

    def steps(self) -> list[Callable[[], None]]:
        """In random order, so that time does not always run out for the same outbox or inbox."""
        steps = [partial(self.outbox, name) for name in self._outboxes()]
        steps += [partial(self.inbox, row[0]) for row in self._rows("maintenance_inboxes")]
        random.shuffle(steps)
        return [*steps]

    def _outboxes(self) -> list[str]:
        """Those with something to do. A statement holds a lock for each outbox that it asks: so it asks for a few."""
        outbox_ids = [row[0] for row in self._rows("maintenance_outbox_ids")]
        self.counts.outboxes = len(outbox_ids)
        pages = [outbox_ids[first : first + PAGE_OUTBOXES] for first in range(0, len(outbox_ids), PAGE_OUTBOXES)]
        return [row[0] for page in pages for row in self._rows("maintenance_outboxes", outbox_ids=page)]

    def reap(self) -> None:
        if found := self._one("consumers_reap"):
            self.counts.consumers += found[0]
            if found[0]:
                log.info("dead consumers removed", consumers=found[0])

    def outbox(self, name: str) -> None:
        """Empties partitions until none is left that may go."""
        while found := self._one("outbox_retain", name=name):
            self._count_outbox(name, found)
            if not found.more or found.busy:
                break

    def _count_outbox(self, name: str, found: Any) -> None:
        counts, metrics = self.counts, worker_metrics()
        counts.truncated += found.truncated
        counts.dropped += found.dropped
        counts.lost += found.lost
        counts.busy += found.busy
        metrics.retention_partitions.labels(name, "truncated").inc(found.truncated)
        metrics.retention_partitions.labels(name, "dropped").inc(found.dropped)
        metrics.retention_lost.labels(name).inc(found.lost)
        if found.truncated or found.dropped:
            log.info("partitions removed", outbox=name, truncated=found.truncated, dropped=found.dropped)
        if found.lost:
            log.error("unsettled messages removed: see tide.retention_loss", outbox=name, messages=found.lost)
        if found.warning:
            log.warning("unsettled messages will be removed", outbox=name, holds=found.warning)

    def inbox(self, name: str) -> None:
        removed = self._all("inbox_retain", name=name)
        self.counts.inbox_rows += removed
        worker_metrics().retention_rows.labels("inbox").inc(removed)

    def dead_letters(self) -> None:
        removed = self._all("dead_letter_retain")
        self.counts.dead_letters += removed
        worker_metrics().retention_rows.labels("dead_letters").inc(removed)

    def streams(self) -> None:
        self.counts.stream_changes += self._all("stream_clean")

    def history(self) -> None:
        removed = self._all("config_history_retain")
        self.counts.history += removed
        worker_metrics().retention_rows.labels("history").inc(removed)

    def _all(self, statement: str, **parameters: object) -> int:
        """Removes rows, MAX_ROWS in each transaction, until none is left; how many."""
        removed = 0
        while found := self._one(statement, max_rows=MAX_ROWS, **parameters):
            removed += found[0]
            if found[0] < MAX_ROWS:
                break
        return removed

    def _one(self, statement: str, **parameters: object) -> Any:
        rows = self._rows(statement, **parameters)
        return rows[0] if rows else None

    def _rows(self, statement: str, **parameters: object) -> list[Any]:
        """Nothing when the time is over, or the statement was refused."""
        if self._stopping() or time.monotonic() > self._until:
            return []
        try:
            with database_errors(), self._connection.cursor(row_factory=namedtuple_row) as cursor:
                return cursor.execute(query(statement), parameters).fetchall()
        except (RelayError, psycopg.Error) as error:
            if self._connection.closed or (isinstance(error, NotConnected) and error.code == READ_ONLY):
                raise
            # An outbox that was dropped since, a lock, a statement too slow: the others do not wait for it.
            log.warning("a step of maintenance was left out", step=statement, reason=reason_of(error), **parameters)
            self.counts.failed += 1
            return []
