"""Processing an inbox: a handler for each message, in the same transaction as its mark.

    from relay import inbox

    def handle(connection, message):
        connection.execute("update orders set paid = true where id = %s", [message.payload["order"]])

    inbox.run("postgresql://...", "payments", handle)

What a handler does through its connection happens exactly once: it is committed together with the mark, or neither is.
What it does elsewhere can happen again, when its process dies before the commit. A message is marked first, and then
handled: the lock of the row keeps other workers away for as long as the handler runs. If the lease has run out and
another worker has the message now, the mark fails and the handler does not start.
"""

import json
import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.string import TextLoader

from relay.database.connection import database_errors, storable
from relay.database.notifications import PACE_SECONDS, Listener
from relay.database.values import MomentLoader
from relay.errors import ConfigError, NotConnected
from relay.masking import mask
from relay.sql import query

Connection = psycopg.Connection[Any]

_log = logging.getLogger(__name__)
# How long a stop may go unnoticed while there is nothing to do.
_STOP_POLL_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class InboxMessage:
    """A message, as a handler receives it."""

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

    `handler` uses the connection that it is given, and does not begin or commit. When it raises, what it did is rolled
    back and the failure is counted: the message is retried after a pause, and is dead after the inbox's `max_retries`.
    `worker` must differ between workers; by default it does. `batch_size` messages are leased at a time for
    `visibility_seconds`, which must be enough until the last of them starts, not until it is done. New messages are
    noticed at once, those that wait for a retry within `poll_seconds`.

    `database` is a URL, and a lost connection is replaced; or a connection in autocommit, which nothing else uses
    meanwhile, and whose loss raises NotConnected. Raises ConfigError if the inbox does not exist or access is denied.
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
            _log.warning("inbox %s: %s; retrying in %.1f s", inbox, error, pause)
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
    rung: bool = False
    """Whether a message is said to have come."""

    def stopped(self) -> bool:
        return self.stop is not None and self.stop.is_set()

    def on(self, connection: Connection) -> None:
        listener = Listener(connection, self._hear)
        try:
            with database_errors():
                connection.execute(query("inbox_listen"))
            self._work(connection, listener)
        finally:
            listener.close()

    def _hear(self, _channel: str, name: str | None) -> None:
        if name == self.inbox:
            self.rung = True

    def _work(self, connection: Connection, listener: Listener) -> None:
        woken = False
        while not self.stopped():
            self.rung = False
            messages = self._claim(connection)
            for at, message in enumerate(messages):
                if self.stopped():
                    self._call(connection, "inbox_release", event_ids=[left.event_id for left in messages[at:]])
                    break
                self.handled += self._handle(connection, message)
            if not messages and self.until_empty:
                return
            # Anyone can ring. A bell is answered at once, unless the last one led to nothing.
            woken = not messages and self._wait(listener, PACE_SECONDS if woken else 0.0)

    def pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.stopped() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _STOP_POLL_SECONDS))

    def _claim(self, connection: Connection) -> list[InboxMessage]:
        """Messages whose JSON Python cannot parse fail here: nested too deeply, or with a number of 5000 digits."""
        limits = {"batch_size": self.batch_size, "visibility_seconds": self.visibility_seconds}
        messages: list[InboxMessage] = []
        while not messages and (rows := self._call(connection, "inbox_claim", **limits)):
            for message in (InboxMessage(*row) for row in rows):
                try:
                    payload, headers = _parsed(message.payload), _parsed(message.headers)
                except (RecursionError, ValueError) as error:
                    self._failed(connection, message, error)
                else:
                    messages.append(replace(message, payload=payload, headers=headers))
        return messages

    def _handle(self, connection: Connection, message: InboxMessage) -> bool:
        done = False  # also after psycopg.Rollback, which the transaction keeps to itself
        try:
            with connection.transaction():
                [(held,)] = self._call(connection, "inbox_mark_processed", event_ids=[message.event_id])
                if held:
                    self.handler(connection, message)
                    if connection.info.transaction_status is not TransactionStatus.INTRANS:
                        raise RuntimeError("the handler continued after an error had ended its transaction")
                    done = True
        except Exception as error:  # noqa: BLE001  whatever a handler raises is a failure of its message
            done = False
            self._failed(connection, message, error)
        return done

    def _failed(self, connection: Connection, message: InboxMessage, error: Exception) -> None:
        if connection.closed:
            raise NotConnected(f"PostgreSQL: lost while message {message.event_id} was handled") from error
        text = mask(storable(f"{type(error).__name__}: {error}"))
        [(outcome,)] = self._call(connection, "inbox_mark_failed", event_id=message.event_id, error=text)
        _log.warning("inbox %s: message %s failed (%s): %s", self.inbox, message.event_id, outcome, text)

    def _wait(self, listener: Listener, pace_seconds: float) -> bool:
        """Until a message is said to have come, or it is time to look anyway; which of them."""
        now = time.monotonic()
        soonest, latest = now + pace_seconds, now + self.poll_seconds
        while not self.stopped() and (left := (soonest if self.rung else latest) - time.monotonic()) > 0:
            with database_errors():
                listener.wait(min(left, _STOP_POLL_SECONDS))
        return self.rung

    def _call(self, connection: Connection, statement: str, **parameters: object) -> list[tuple[Any, ...]]:
        names = {"inbox": self.inbox, "worker": self.worker}
        with database_errors(), connection.cursor(row_factory=tuple_row) as cursor:
            # As text: one value that Python cannot parse would cost the whole answer.
            cursor.adapters.register_loader("jsonb", TextLoader)
            cursor.adapters.register_loader("timestamptz", MomentLoader)
            return cursor.execute(query(statement), {**names, **parameters}).fetchall()


def _parsed(text: Any) -> Any:
    return None if text is None else json.loads(text)
