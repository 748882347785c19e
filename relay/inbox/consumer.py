"""Processing an inbox: a handler for each message, in the same transaction as its mark.

    from relay import inbox

    def handle(connection, message):
        connection.execute("update orders set paid = true where id = %s", [message.payload["order"]])

    inbox.run("postgresql://...", "payments", handle)

What a handler does through its connection happens exactly once: it is committed together with the mark, or neither is.
What it does elsewhere can happen again, when its process dies before the commit. With `transaction` that connection is
one of the application's own, such as a session of SQLAlchemy. A message is marked first, and then
handled: the lock of the row keeps other workers away for as long as the handler runs. If the lease has run out and
another worker has the message now, the mark fails and the handler does not start.
"""

import inspect
import logging
import os
import random
import secrets
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

import psycopg

from relay.database.connection import VALUES, database_errors, storable, values
from relay.database.notifications import PACE_SECONDS, Listener
from relay.errors import ConfigError, NotConnected
from relay.hosts import ascii_conninfo
from relay.inbox.calls import call, parsed
from relay.inbox.message import Connection, Handler, InboxMessage, Stop
from relay.inbox.transactions import Abandoned, Handling, Holder, NotBegun, in_transactions, on_own_connection
from relay.masking import mask
from relay.reasons import reason_of
from relay.sql import query

T = TypeVar("T")

_log = logging.getLogger(__name__)
# How long a stop may go unnoticed while there is nothing to do.
_STOP_POLL_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 30.0
# With `until_empty` someone waits for the end: so many connections in a row may fail, over about a minute.
_LOSSES_UNTIL_EMPTY = 9


@overload
def run(
    database: str | Connection,
    inbox: str,
    handler: Handler,
    *,
    transaction: None = None,
    worker: str | None = None,
    batch_size: int = 10,
    visibility_seconds: int = 30,
    poll_seconds: float = 1.0,
    stop: Stop | None = None,
    until_empty: bool = False,
) -> int: ...


@overload
def run(
    database: str | Connection,
    inbox: str,
    handler: Callable[[T, InboxMessage], object],
    *,
    transaction: Callable[[], AbstractContextManager[T]],
    worker: str | None = None,
    batch_size: int = 10,
    visibility_seconds: int = 30,
    poll_seconds: float = 1.0,
    stop: Stop | None = None,
    until_empty: bool = False,
) -> int: ...


def run(
    database: str | Connection,
    inbox: str,
    handler: Callable[[Any, InboxMessage], object],
    *,
    transaction: Callable[[], AbstractContextManager[Any]] | None = None,
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

    `transaction` opens a transaction of the application in the same database, for each message: a function whose
    context manager gives the handler's connection, commits, and rolls back what an error leaves. `sessionmaker.begin`
    and `engine.begin` of SQLAlchemy, Django's `transaction.atomic` and `pool.connection` of psycopg are such.

    `database` is a URL, and a lost connection is replaced; with `until_empty`, NotConnected is raised if the first one
    fails, or PostgreSQL stays away. Or it is a connection in autocommit, which nothing else uses meanwhile, and whose
    loss raises NotConnected. Raises ConfigError if the inbox does not exist or access is denied.
    A coroutine needs `run_async`.
    """
    if inspect.iscoroutinefunction(handler):
        raise ConfigError("the handler is a coroutine function: await inbox.run_async(...) with it")
    holder = new_holder(inbox, worker)
    handle = in_transactions(transaction, handler, holder) if transaction else on_own_connection(handler, holder)
    work = Work(holder, handle, batch_size, visibility_seconds, poll_seconds, stop, until_empty)
    if isinstance(database, str):
        work.run(known_url(database))
    elif database.autocommit:
        work.on(database)
    else:
        raise ConfigError("the connection must be in autocommit: psycopg.connect(..., autocommit=True)")
    return work.handled


def known_url(text: str) -> str:
    """The URL with its host as DNS knows it. Raises ConfigError."""
    try:
        return ascii_conninfo(text)
    except ValueError as error:
        raise ConfigError(f"the URL of the database {error}") from None


def new_holder(inbox: str, worker: str | None) -> Holder:
    return Holder(inbox, worker or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}")


@dataclass(slots=True)
class Work:
    """The loop: claims messages, has each handled, and counts failures."""

    holder: Holder
    handle: Handling
    batch_size: int
    visibility_seconds: int
    poll_seconds: float
    stop: Stop | None
    until_empty: bool
    handled: int = 0
    answers: int = 0
    """Calls that PostgreSQL answered: after one, a lost connection is a first failure."""
    rung: bool = False
    """Whether a message is said to have come."""

    def stopped(self) -> bool:
        return self.stop is not None and self.stop.is_set()

    def run(self, url: str) -> None:
        """On a connection of its own, and on another one when it is lost."""
        failures = 0
        while not self.stopped():
            before = self.answers
            try:
                options: dict[str, Any] = {"autocommit": True, "application_name": "tide-relay inbox", **VALUES}
                with database_errors(), psycopg.connect(url, **options) as own:
                    own.execute(*values())
                    self.on(own)
                    return
            except NotConnected as error:
                failures = 1 if self.answers > before else failures + 1
                if self.until_empty and (not self.answers or failures > _LOSSES_UNTIL_EMPTY):
                    raise
                pause = min(_MAX_PAUSE_SECONDS, 0.1 * 2 ** min(failures, 9)) * random.uniform(0.5, 1)
                _log.warning("inbox %s: %s; retrying in %.1f s", self.holder.inbox, error, pause)
                self.pause(pause)

    def on(self, connection: Connection) -> None:
        listener = Listener(connection, self._hear)
        try:
            with database_errors():
                connection.execute(query("inbox_listen"))
            self._work(connection, listener)
        finally:
            listener.close()

    def _hear(self, _channel: str, name: str | None) -> None:
        if name == self.holder.inbox:
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
                    messages.append(parsed(message))
                except (RecursionError, ValueError) as error:
                    self._failed(connection, message, error)
        return messages

    def _handle(self, connection: Connection, message: InboxMessage) -> bool:
        try:
            return self.handle(connection, message)
        except NotBegun as not_begun:
            raise not_begun.reason from not_begun.__cause__
        except Abandoned:
            self._call(connection, "inbox_release", event_ids=[message.event_id])
        except Exception as error:  # noqa: BLE001  whatever a handler raises is a failure of its message
            self._failed(connection, message, error)
        return False

    def _failed(self, connection: Connection, message: InboxMessage, error: Exception) -> None:
        if connection.closed:
            raise NotConnected(f"PostgreSQL: lost while message {message.event_id} was handled") from error
        text = mask(storable(f"{type(error).__name__}: {reason_of(error)}")) + storable(_place(error))
        [(outcome,)] = self._call(connection, "inbox_mark_failed", event_id=message.event_id, error=text)
        inbox, event_id = self.holder.inbox, message.event_id
        _log.warning("inbox %s: message %s failed (%s): %s", inbox, event_id, outcome, text, exc_info=error)

    def _wait(self, listener: Listener, pace_seconds: float) -> bool:
        """Until a message is said to have come, or it is time to look anyway; which of them."""
        now = time.monotonic()
        soonest, latest = now + pace_seconds, now + self.poll_seconds
        while not self.stopped() and (left := (soonest if self.rung else latest) - time.monotonic()) > 0:
            with database_errors():
                listener.wait(min(left, _STOP_POLL_SECONDS))
        return self.rung

    def _call(self, connection: Connection, statement: str, **parameters: object) -> list[tuple[Any, ...]]:
        answer = call(connection, self.holder, statement, **parameters)
        self.answers += 1
        return answer


def _place(error: Exception) -> str:
    """Where it was raised, for people who have the stored error alone; nothing for an error of ours."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return ""
    frame, line = frames[-1]
    if str(frame.f_globals.get("__name__")).startswith("relay."):
        return ""
    file = "/".join(Path(frame.f_code.co_filename).parts[-2:])
    return f" ({file}:{line} in {frame.f_code.co_name})"
