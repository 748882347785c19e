"""Reading an outbox for one consumer group, and settling what became of its messages.

The horizon, the bell and why nothing is lost: see `sql/functions/publish.sql`. Two rules bind this module:

- The horizon is read before the messages, in a statement of its own: one statement would have one snapshot, older than
  the marks that it reads.
- A group that found nothing commits its armed bell before it looks again.

Statements that belong together travel together: a settle and the next read take one round trip.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NoReturn

import psycopg
from psycopg import Cursor
from psycopg.rows import args_row

from relay.database.connection import Connection, database_errors, storable
from relay.drains.lease import DrainStart, Lease
from relay.errors import Fenced
from relay.models import Failure, Message
from relay.sql import query

# Two batches are in memory at once for each thread: one at the sink, one read ahead.
MAX_BATCH_BYTES = 2 * 1024 * 1024

Bell = Literal["arm", "disarm"]


@dataclass(frozen=True, slots=True)
class Batch:
    """The next messages of a group, in order, none missing up to the last; if there is none, none up to the horizon."""

    messages: list[Message]
    horizon: int
    open_publishers: int
    """Transactions that may still add messages above the horizon; not counted while that is far ahead."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a batch: everything up to `offset_id` was delivered or is a dead letter."""

    offset_id: int
    delivered: int = 0
    dead: tuple[tuple[int, Failure], ...] = ()
    """(message id, why) of each message that was refused for good."""
    failure: Failure | None = None
    """The temporary failure that stopped it, if one did."""


def settlement(messages: Sequence[Message], failures: Sequence[Failure], offset_id: int) -> Settlement:
    """The longest prefix in which every message was delivered or refused for good, after `offset_id`."""
    temporary = min((f for f in failures if not f.permanent), key=lambda f: f.index, default=None)
    settled = messages if temporary is None else messages[: temporary.index]
    if not settled:
        return Settlement(offset_id, failure=temporary)
    dead = tuple((messages[f.index].id, f) for f in failures if f.permanent and f.index < len(settled))
    return Settlement(settled[-1].id, len(settled) - len(dead), dead, temporary)


class PendingRead(NamedTuple):
    """A question that is on its way to PostgreSQL, or answered and not yet received."""

    pipeline: ExitStack
    sent_at: float
    fence: "Cursor[Any] | None"
    horizon: "Cursor[Any] | None"
    rows: "Cursor[Message]"


class Reader:
    """One drain's session with its consumer group. Every write names the fence of its lease, and renews the lease.

    Methods raise Fenced when the drain was given up, NotConnected when PostgreSQL is lost. One thread at a time.
    """

    config_changed = False
    """Whether the pipeline was changed since the drain began, as of the last settle."""

    def __init__(self, connection: Connection, lease: Lease, begun: DrainStart, max_messages: int) -> None:
        self._connection = connection
        self._lease = lease
        self._revision = begun.revision
        self._max_messages = max_messages
        self._horizon = 0
        self._asked: PendingRead | None = None
        self._batch = Batch([], 0, 0)
        self._parameters = {
            **lease.fence,
            "lease_seconds": lease.seconds,
            "group_id": begun.group_id,
            "outbox_id": begun.outbox_id,
            "outbox": begun.outbox,
        }

    def ask(self, after: int, settled: Settlement | None = None, bell: Bell | None = None) -> None:
        """Writes what is given, commits it, and then reads the messages after an id: one round trip.

        Only sends: PostgreSQL works while the caller does something else, and `receive` takes the answer. A thread that
        waited here instead would fight the caller for the interpreter.
        A horizon stays true once it is read, so a backlog needs a new one only when it comes near the last.
        """
        assert self._asked is None
        sent_at = time.monotonic()
        behind = bell != "arm" and after + self._max_messages <= self._horizon
        with database_errors(), ExitStack() as stack:
            stack.enter_context(self._connection.pipeline())
            fence = self._write(settled, bell)
            # A transaction of its own, so that none stays open until the answer is taken.
            self._connection.execute(query("begin"))
            if behind:
                self._execute("horizon_known", horizon=self._horizon)
            horizon = None if behind else self._execute("outbox_horizon")
            rows = self._connection.cursor(row_factory=args_row(Message)).execute(
                query("outbox_read"),
                {**self._parameters, "after": after, "max_messages": self._max_messages, "max_bytes": MAX_BATCH_BYTES},
                binary=True,
            )
            self._connection.execute("commit")
            self._asked = PendingRead(stack.pop_all(), sent_at, fence, horizon, rows)

    def receive(self) -> Batch:
        """What was asked for last; the same batch again if nothing was asked since."""
        asked, self._asked = self._asked, None
        if asked:
            with database_errors():
                asked.pipeline.close()
                self._check(asked.fence, asked.sent_at)
                open_publishers = 0
                if asked.horizon:
                    [(self._horizon, open_publishers, _)] = asked.horizon.fetchall()
                self._batch = Batch(asked.rows.fetchall(), self._horizon, open_publishers)
        return self._batch

    def read(self, after: int, settled: Settlement | None = None, bell: Bell | None = None) -> Batch:
        """`ask` and `receive` in one."""
        self.ask(after, settled, bell)
        return self.receive()

    def settle(self, settled: Settlement) -> None:
        """Writes what became of the last batch."""
        sent_at = time.monotonic()
        with database_errors():
            with self._connection.pipeline():
                fence = self._write(settled, None)
            self._check(fence, sent_at)

    def set_bell(self, bell: Bell) -> None:
        """Commits whether publishers ring."""
        with database_errors(), self._connection.pipeline():
            self._write(None, bell)

    @contextmanager
    def joined(self) -> Iterator["Joined"]:
        """A transaction in which a sink writes and what became of it is settled: both or neither."""
        # psycopg lets a Rollback through when there is no connection any more on which to roll back.
        with database_errors(), suppress(psycopg.Rollback), self._connection.transaction():
            self._connection.execute(query("durably"))
            yield Joined(self)

    def peek(self, after: int, max_rows: int, max_bytes: int) -> "Backlog":
        """How much waits after an id, of at most one object."""
        limits = {"after": after, "max_rows": max_rows, "max_bytes": max_bytes}
        with database_errors():
            with self._connection.pipeline():
                self._connection.execute(query("begin"))
                horizon = self._execute("outbox_horizon")
                found = self._execute("gather_look", **limits)
                self._connection.execute("commit")
            [(self._horizon, open_publishers, _)] = horizon.fetchall()
            [(messages, size, seconds, end_id)] = found.fetchall()
            return Backlog(messages, size, seconds, end_id, self._horizon, open_publishers)

    def plan(self, after: int, end_id: int) -> None:
        """Commits between which messages the object in hand lies; `planned_end` reads it again."""
        with database_errors(), self._connection.transaction():
            self._connection.execute(query("durably"))
            if self._execute("gather_plan", plan=f"{after}:{end_id}").fetchone() is None:
                self._fenced()

    def _write(self, settled: Settlement | None, bell: Bell | None) -> "Cursor[Any] | None":
        if settled is None and bell is None:
            return None
        fence = None
        self._connection.execute(query("begin"))
        if settled:
            self._connection.execute(query("durably"))
            fence = self._settle(settled)
        if bell:
            self._execute(f"bell_{bell}")
        self._connection.execute("commit")
        return fence

    def _settle(self, settled: Settlement) -> "Cursor[Any]":
        if settled.dead:
            self._execute("settle_dead_letters", **_columns(settled))
        return self._execute(
            "settle", offset_id=settled.offset_id, delivered=settled.delivered, dead_letters=len(settled.dead)
        )

    def _fenced(self) -> NoReturn:
        drain = self._lease.drain
        raise Fenced(f"drain {drain.number} of pipeline {drain.pipeline!r} was given up")

    def _execute(self, name: str, **parameters: object) -> "Cursor[Any]":
        return self._connection.execute(query(name), {**self._parameters, **parameters})

    def _check(self, fence: "Cursor[Any] | None", sent_at: float) -> None:
        if fence is None:
            return
        row = fence.fetchone()
        if row is None:
            self._fenced()
        self._lease.renewed(sent_at)
        self.config_changed = row[0] != self._revision


class Joined:
    """An open transaction of a drain: see `Reader.joined`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._sent_at = time.monotonic()

    def settle(self, settled: Settlement) -> None:
        self._reader._check(self._reader._settle(settled), self._sent_at)


class Backlog(NamedTuple):
    """How much waits after an offset, of at most one object."""

    messages: int
    bytes: int
    seconds: float | None
    """Age of the oldest; None if none waits."""
    end_id: int | None
    """The last of them."""
    horizon: int
    open_publishers: int


def planned_end(begun: DrainStart) -> int:
    """The last message of the object that was begun at this offset, or 0. Another offset makes the plan void."""
    after, _, end_id = begun.positions.get("object", "0").rpartition(":")
    # Earlier releases stored the end alone.
    return int(end_id) if after in ("", str(begun.offset_id)) else 0


def _columns(settled: Settlement) -> dict[str, list[Any]]:
    return {
        "ids": [message_id for message_id, _ in settled.dead],
        "codes": [failure.code for _, failure in settled.dead],
        "reasons": [storable(failure.reason) for _, failure in settled.dead],
    }
