"""Many requests, one commit: what waits is written together, in one transaction for each inbox.

No timer: a request that finds no other waiting is written at once, and those that arrive while it commits form the next
batch. So a lone request is quick, and batches grow with the load.
"""

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Literal, NamedTuple

import psycopg
import structlog

from relay.database.connection import Connection, connect, database_errors
from relay.errors import NotConnected, RelayError
from relay.inbox.rows import REFUSALS, reason, write
from relay.models import InboxRow
from relay.settings import Settings
from relay.sql import query
from relay.web.metrics import ApiMetrics

log = structlog.get_logger(__name__)

BATCH_LIMIT = 500
BATCH_BYTES_LIMIT = 4 * 1024 * 1024


class Outcome(NamedTuple):
    """What became of a row. Whatever it says is committed."""

    state: Literal["stored", "known", "other", "refused"]
    """New; there before; there is another message under this id; PostgreSQL cannot hold it."""
    reason: str = ""


class Waiting(NamedTuple):
    inbox: str
    row: InboxRow
    outcome: "Future[Outcome]"


class Writer:
    """`write` from any thread; `run` in a thread of its own, until `close`. At most one session.

    The caller bounds what waits: see `relay.web.webhooks.limits.Room`.
    """

    def __init__(self, settings: Settings, metrics: ApiMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._connection: Connection | None = None
        self._waiting: deque[Waiting] = deque()
        self._bell = threading.Condition()
        self._closed = False
        self.trouble: str | None = None
        """Why the last attempt to write failed; for people."""

    def write(self, inbox: str, row: InboxRow) -> "Future[Outcome]":
        """The future raises RelayError if nothing is known of what became of it: the sender has to come again."""
        outcome: Future[Outcome] = Future()
        with self._bell:
            if self._closed:
                outcome.set_exception(NotConnected("the writer is closed", code="closed"))
            else:
                self._waiting.append(Waiting(inbox, row, outcome))
                self._bell.notify()
        return outcome

    def close(self) -> None:
        """What waits is still written; `run` returns then."""
        with self._bell:
            self._closed = True
            self._bell.notify()

    def run(self) -> None:
        try:
            while batch := self._next():
                # One inbox after the other: a batch of one must not spoil that of another.
                for inbox in dict.fromkeys(one.inbox for one in batch):
                    self._settle(inbox, [one for one in batch if one.inbox == inbox])
        finally:
            self._hang_up()

    def _next(self) -> list[Waiting]:
        """What waits, within limits; nothing when the end has come."""
        batch: list[Waiting] = []
        size = 0
        with self._bell:
            while not batch:
                while not self._waiting and not self._closed:
                    self._bell.wait()
                if not self._waiting:
                    return []
                while self._waiting and len(batch) < BATCH_LIMIT and size < BATCH_BYTES_LIMIT:
                    one = self._waiting.popleft()
                    # Otherwise its sender no longer waits, and will send it again.
                    if one.outcome.set_running_or_notify_cancel():
                        batch.append(one)
                        size += len(one.row.payload)
        return batch

    def _settle(self, inbox: str, batch: Sequence[Waiting]) -> None:
        try:
            outcomes = self._write(inbox, [one.row for one in batch])
        except Exception as error:
            self._hang_up()
            if isinstance(error, RelayError):
                self.trouble = str(error)
                log.error("cannot write", inbox=inbox, reason=str(error))
            else:
                self.trouble = type(error).__name__
                log.exception("bug in the writer", inbox=inbox)
            for one in batch:
                one.outcome.set_exception(error)
            return
        self.trouble = None
        for one, outcome in zip(batch, outcomes, strict=True):
            one.outcome.set_result(outcome)

    def _write(self, inbox: str, rows: Sequence[InboxRow]) -> list[Outcome]:
        with database_errors():
            if self._connection is None or self._connection.closed:
                self._connection = connect(self._settings, "tide-relay api")
            try:
                return self._write_together(self._connection, inbox, rows)
            except REFUSALS as error:
                if len(rows) == 1:
                    return [Outcome("refused", reason(error))]
        # One of them is to blame: by halves, each in a transaction of its own.
        middle = len(rows) // 2
        return [*self._write(inbox, rows[:middle]), *self._write(inbox, rows[middle:])]

    def _write_together(self, connection: Connection, inbox: str, rows: Sequence[InboxRow]) -> list[Outcome]:
        with connection.transaction():
            self._metrics.batches.inc()
            if write(connection, inbox, rows) == len(rows):
                return [Outcome("stored")] * len(rows)
            parameters = {
                "inbox": inbox,
                "event_ids": [row.event_id for row in rows],
                "payloads": [row.payload for row in rows],
            }
            looked = connection.execute(query("api_look"), parameters).fetchall()
        return _judged(rows, looked)

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except psycopg.Error as error:
                log.debug("session ended badly", reason=str(error))


def _judged(rows: Sequence[InboxRow], looked: Sequence[tuple[bool | None, bool | None]]) -> list[Outcome]:
    """`looked`: for each row, whether this transaction wrote its id, and whether its payload is the stored one."""
    outcomes, seen = [], set()
    for row, (is_new, is_same) in zip(rows, looked, strict=True):
        if is_same is False:
            outcomes.append(Outcome("other"))
        else:
            outcomes.append(Outcome("stored" if is_new and row.event_id not in seen else "known"))
        seen.add(row.event_id)
    return outcomes
