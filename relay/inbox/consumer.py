"""Working an inbox off: a handler for each message, in the same transaction as its mark.

    from relay import inbox

    def handle(connection, message):
        connection.execute("update orders set paid = true where id = %s", [message.payload["order"]])

    inbox.run("postgresql://...", "payments", handle)

What a handler does through its connection happens exactly once: it is committed together with the mark, or neither is.
What it does elsewhere can happen again, when its process dies before the commit. A message is marked first and handled
then: the row's lock keeps it from everybody else for as long as the handler needs, and a mark that fails because the
lease was over, and another worker has the message now, keeps the handler from beginning at all.
"""

import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from relay.database.connection import database_errors, storable
from relay.errors import ConfigError, NotConnected
from relay.masking import mask
from relay.sql import query

Connection = psycopg.Connection[Any]

_log = logging.getLogger(__name__)
# How long a stop may go unnoticed while there is nothing to do.
_LOOK_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 30.0
_MAX_ERROR_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class InboxMessage:
    """A message as its handler gets it."""

    event_id: str
    inbox_seq: int
    """The order of arrival."""
    event_type: str | None
    source: str | None
    aggregate_id: str | None
    event_sequence: int | None
    payload: Any
    """The JSON value."""
    headers: dict[str, Any]
    trace_id: str | None
    received_at: datetime
    retry_count: int
    """How often it has failed."""
    claimed_until: datetime


Handler = Callable[[Connection, InboxMessage], object]


class Stop(Protocol):
    """A `threading.Event`, or a `relay.process.stop.Stop`."""

    def is_set(self) -> bool: ...


def run(
    database: str | Connection,
    inbox: str,
    handler: Handler,
    *,
    worker: str | None = None,
    batch_size: int = 10,
    visibility_seconds: int = 30,
    poll_seconds: float = 1.0,
    stop: Stop | None = None,
    until_empty: bool = False,
) -> int:
    """Handles messages until `stop` is set, or, with `until_empty`, until none can be claimed; returns how many.

    `handler` uses the connection that it is given, and leaves begin and commit alone. When it raises, what it did is
    rolled back and the failure is counted: the message comes again after a pause, and is dead after the inbox's
    max_retries. `worker` must differ between workers; by default it does. `batch_size` messages are leased at a time
    for `visibility_seconds`, which must suffice until the last of them is begun, not until it is done. New messages
    are heard of at once, those that wait for a retry within `poll_seconds`.

    `database` is a URL, and a lost connection is made anew; or a connection in autocommit, which is used by nobody else
    meanwhile, and then NotConnected is raised. Raises ConfigError for an inbox that is not there, or no right to it.
    """
    name = worker or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    work = _Work(inbox, handler, name, batch_size, visibility_seconds, poll_seconds, stop, until_empty)
    if not isinstance(database, str):
        if not database.autocommit:
            raise ConfigError("the connection must be in autocommit: psycopg.connect(..., autocommit=True)")
        work.on(database)
        return work.handled
    failures = 0
    while not work.stopped():
        before = work.handled
        try:
            with (
                database_errors(),
                psycopg.connect(database, autocommit=True, application_name="tide-relay inbox") as own,
            ):
                work.on(own)
                break
        except NotConnected as error:
            failures = 1 if work.handled > before else failures + 1
            pause = min(_MAX_PAUSE_SECONDS, 0.1 * 2 ** min(failures, 9)) * random.uniform(0.5, 1)
            _log.warning("inbox %s: %s; trying again in %.1f s", inbox, error, pause)
            work.pause(pause)
    return work.handled


@dataclass(slots=True)
class _Work:
    inbox: str
    handler: Handler
    worker: str
    batch_size: int
    visibility_seconds: int
    poll_seconds: float
    stop: Stop | None
    until_empty: bool
    handled: int = 0

    def stopped(self) -> bool:
        return self.stop is not None and self.stop.is_set()

    def on(self, connection: Connection) -> None:
        with database_errors():
            connection.execute(query("inbox_listen"))
        while not self.stopped():
            messages = self._claim(connection)
            for at, message in enumerate(messages):
                if self.stopped():
                    self._call(connection, "inbox_release", event_ids=[left.event_id for left in messages[at:]])
                    break
                self.handled += self._handle(connection, message)
            if not messages:
                if self.until_empty:
                    return
                self._wait(connection)

    def pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.stopped() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_SECONDS))

    def _claim(self, connection: Connection) -> list[InboxMessage]:
        limits = {"batch_size": self.batch_size, "visibility_seconds": self.visibility_seconds}
        return [InboxMessage(*row) for row in self._call(connection, "inbox_claim", **limits)]

    def _handle(self, connection: Connection, message: InboxMessage) -> bool:
        done = False  # also after psycopg.Rollback, which the transaction keeps to itself
        try:
            with connection.transaction():
                [(held,)] = self._call(connection, "inbox_mark_processed", event_ids=[message.event_id])
                if held:
                    self.handler(connection, message)
                    if connection.info.transaction_status is not TransactionStatus.INTRANS:
                        raise RuntimeError("the handler went on after an error had ended its transaction")
                    done = True
        except Exception as error:  # noqa: BLE001  whatever a handler raises is a failure of its message
            done = False
            self._failed(connection, message, error)
        return done

    def _failed(self, connection: Connection, message: InboxMessage, error: Exception) -> None:
        if connection.closed:
            raise NotConnected(f"PostgreSQL: lost while message {message.event_id} was handled") from error
        text = mask(storable(f"{type(error).__name__}: {error}"))[:_MAX_ERROR_CHARACTERS]
        [(outcome,)] = self._call(connection, "inbox_mark_failed", event_id=message.event_id, error=text)
        _log.warning("inbox %s: message %s failed (%s): %s", self.inbox, message.event_id, outcome, text)

    def _wait(self, connection: Connection) -> None:
        until = time.monotonic() + self.poll_seconds
        while not self.stopped() and (left := until - time.monotonic()) > 0:
            with database_errors():
                for notify in connection.notifies(timeout=min(left, _LOOK_SECONDS), stop_after=1):
                    if notify.payload == self.inbox:
                        return

    def _call(self, connection: Connection, statement: str, **parameters: object) -> list[tuple[Any, ...]]:
        names = {"inbox": self.inbox, "worker": self.worker}
        with database_errors(), connection.cursor(row_factory=tuple_row) as cursor:
            return cursor.execute(query(statement), {**names, **parameters}).fetchall()
