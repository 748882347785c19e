"""Reading an outbox for one consumer group, and settling what became of its messages.

The horizon, the bell and why nothing is lost: see `messages.py` and `sql/functions/publish.sql`. The rule that binds
this module: a group that found nothing commits its armed bell before it looks again.

Statements that belong together travel together: a settle and the next read take one round trip. Small batches are cut
from a larger read.
"""

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from relay.database.connection import database_errors, storable
from relay.drains.fence import Cursor, FencedSession
from relay.drains.lease import DrainStart
from relay.drains.messages import MessageRead, Place, ask_messages
from relay.models import Failure, Message
from relay.sql import query

Bell = Literal["arm", "disarm"]


# Of one read of a lane. The other lanes may have everything in the outbox.
MOST_IDS = 100_000


@dataclass(frozen=True, slots=True)
class Batch:
    """The next messages of a lane, in order, none missing up to the last; if there is none, none up to the horizon."""

    messages: list[Message]
    horizon: int
    open_publishers: int
    """Transactions that may still add messages above the horizon; not counted while that is far ahead."""
    ends_early: bool = False
    """Whether there is more to read above the horizon: a lane reads so many ids at a time."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a batch: everything up to `offset_id` was delivered or is a dead letter."""

    offset_id: int
    delivered: int = 0
    dead: tuple[tuple[int, Failure], ...] = ()
    """(message id, why) of each message that was permanently refused."""
    failure: Failure | None = None
    """The temporary failure that stopped it, if one did."""


def settlement(messages: Sequence[Message], failures: Sequence[Failure], offset_id: int) -> Settlement:
    """The longest prefix in which every message was delivered or permanently refused, after `offset_id`."""
    temporary = min((f for f in failures if not f.permanent), key=lambda f: f.index, default=None)
    settled = messages if temporary is None else messages[: temporary.index]
    if not settled:
        return Settlement(offset_id, failure=temporary)
    dead = tuple((messages[f.index].id, f) for f in failures if f.permanent and f.index < len(settled))
    return Settlement(settled[-1].id, len(settled) - len(dead), dead, temporary)


def joined(first: Settlement, second: Settlement) -> Settlement:
    """What became of two batches in a row."""
    return replace(second, delivered=first.delivered + second.delivered, dead=first.dead + second.dead)


class Pending(NamedTuple):
    """What was sent to PostgreSQL, and whose answer was not taken yet."""

    pipeline: ExitStack
    sent_at: float
    fence: Cursor | None
    read: MessageRead | None
    """None if nothing had to be read."""


class Reader:
    """Reads one consumer group for a drain, and settles. Every write names the fence, and renews the lease.

    Methods raise Fenced when the drain was abandoned, NotConnected when PostgreSQL is lost. One thread at a time.
    """

    def __init__(self, session: FencedSession, max_messages: int) -> None:
        self._session = session
        self._connection = session.connection
        self._max_messages = max_messages
        self._horizon = 0
        self._lane = _lane(session.start)
        self._pending: Pending | None = None
        self._batch = Batch([], 0, 0)
        self._ahead: list[Message] = []
        """Read already: the messages that follow those with an id up to `_ahead_of`."""
        self._ahead_of = 0

    def ask(self, after: int, settled: Settlement | None = None, bell: Bell | None = None) -> None:
        """Writes what is given, commits it, and then reads the messages after an id: one round trip.

        Only sends: PostgreSQL works while the caller does something else, and `receive` takes the answer. A thread that
        waited here instead would fight the caller for the interpreter.
        """
        assert self._pending is None
        sent_at = time.monotonic()
        if after != self._ahead_of or bell == "arm":
            self._ahead, self._ahead_of = [], after
        with database_errors(), ExitStack() as stack:
            if settled or bell or not self._ahead:
                stack.enter_context(self._connection.pipeline())
            fence = self._write(settled, bell)
            read = None if self._ahead else self._read_on(after, fresh=bell == "arm")
            self._pending = Pending(stack.pop_all(), sent_at, fence, read)

    def _read_on(self, after: int, *, fresh: bool) -> MessageRead:
        """Asks in a transaction of its own, so that none stays open until the answer is taken.

        A horizon stays true once it is read, so a backlog needs a new one only when it comes near the last.
        """
        outbox_id = self._session.start.outbox_id
        assert outbox_id is not None
        place = Place(outbox_id, after, self._max_messages)
        if not fresh and after + place.max_messages <= self._horizon:
            return ask_messages(self._connection, place, self._horizon, self._lane)
        self._connection.execute(query("begin"))
        read = ask_messages(self._connection, place, None, self._lane)
        self._connection.execute("commit")
        return read

    def is_ahead(self, after: int) -> bool:
        """Whether messages after this id were read already."""
        return bool(self._ahead) and self._ahead_of == after

    def receive(self) -> Batch:
        """What was asked for last; the same batch again if nothing was asked since."""
        pending, self._pending = self._pending, None
        if pending:
            with database_errors():
                pending.pipeline.close()
                self._check(pending.fence, pending.sent_at)
                self._batch = self._next_batch(pending.read)
        return self._batch

    def _next_batch(self, read: MessageRead | None) -> Batch:
        open_publishers = 0
        end = self._horizon
        if read:
            self._ahead = read.rows.fetchall()
            if read.horizon:
                [(self._horizon, open_publishers, *_)] = read.horizon.fetchall()
            end = min(self._horizon, read.place.after + MOST_IDS) if self._lane else self._horizon
        batch = self._ahead[: self._max_messages]
        if batch:
            self._ahead, self._ahead_of = self._ahead[len(batch) :], batch[-1].id
        return Batch(batch, end, open_publishers, end < self._horizon)

    def first(self, after: int) -> Batch:
        """`read` at the beginning of a drain: what was read while it began, if that was read after this id."""
        read = self._session.start.read
        if read is None or self._lane or read.place[:2] != (self._session.start.outbox_id, after):
            return self.read(after)
        with database_errors():
            self._ahead_of = after
            self._batch = self._next_batch(read)
        return self._batch

    def read(self, after: int, settled: Settlement | None = None, bell: Bell | None = None) -> Batch:
        """`ask` and `receive` in one."""
        self.ask(after, settled, bell)
        return self.receive()

    def settle(self, settled: Settlement) -> None:
        """Commits what became of the last batch."""
        sent_at = time.monotonic()
        with database_errors():
            with self._connection.pipeline():
                fence = self._write(settled, None)
            self._check(fence, sent_at)

    def settle_inside(self, settled: Settlement) -> None:
        """Writes what became of the last batch in the caller's transaction: see `FencedSession.transaction`."""
        sent_at = time.monotonic()
        self._check(self._settle(settled), sent_at)

    def set_bell(self, bell: Bell) -> None:
        """Commits whether publishers ring."""
        with database_errors(), self._connection.pipeline():
            self._write(None, bell)

    def peek(self, after: int, max_rows: int, max_bytes: int) -> "Backlog":
        """How much waits after an id, of at most one object."""
        with database_errors():
            with self._connection.pipeline():
                self._connection.execute(query("begin"))
                horizon = self._session.execute("outbox_horizon")
                found = self._session.execute("gather_look", after=after, max_rows=max_rows, max_bytes=max_bytes)
                self._connection.execute("commit")
            [(self._horizon, open_publishers, *_)] = horizon.fetchall()
            [(messages, size, seconds, end_id)] = found.fetchall()
            return Backlog(messages, size, seconds, end_id, self._horizon, open_publishers)

    def plan(self, after: int, end_id: int) -> None:
        """Commits between which messages the object in hand lies; `planned_end` reads it again."""
        with self._session.transaction():
            self._session.check(self._session.execute("gather_plan", plan=f"{after}:{end_id}"))

    def _write(self, settled: Settlement | None, bell: Bell | None) -> Cursor | None:
        if settled is None and bell is None:
            return None
        fence = None
        self._connection.execute(query("begin"))
        if settled:
            fence = self._settle(settled)
        if bell:
            self._session.execute(f"bell_{bell}")
        self._connection.execute("commit")
        return fence

    def _settle(self, settled: Settlement) -> Cursor:
        if settled.dead:
            self._session.execute_once("settle_dead_letters", **_columns(settled))
        return self._session.execute(
            "settle", offset_id=settled.offset_id, delivered=settled.delivered, dead_letters=len(settled.dead)
        )

    def _check(self, fence: Cursor | None, sent_at: float) -> None:
        if fence is not None:
            self._session.check_renewal(fence, sent_at)


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


def _lane(start: DrainStart) -> dict[str, Any]:
    """Which messages of the group are ours, for the statement that reads a lane; empty if all are."""
    if start.reads_all:
        return {}
    past = json.dumps(start.passed_over)
    return {"lane": start.lane, "lanes": start.lanes, "past": past, "max_ids": MOST_IDS}


def planned_end(start: DrainStart) -> int:
    """The last message of the object that was planned at this offset, or 0. Another offset makes the plan void."""
    after, _, end_id = start.positions.get("object", "0:0").rpartition(":")
    return int(end_id) if after == str(start.offset_id) else 0


def _columns(settled: Settlement) -> dict[str, list[Any]]:
    return {
        "ids": [message_id for message_id, _ in settled.dead],
        "codes": [failure.code for _, failure in settled.dead],
        "reasons": [storable(failure.reason) for _, failure in settled.dead],
    }
