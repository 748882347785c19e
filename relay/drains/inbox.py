"""Writing a received batch to its inbox, once, with its positions.

The rule that binds this module: rows, dead letters and positions of a batch are one transaction, which names the fence
of its drain. A batch is written as it is; only when PostgreSQL refuses it are the rows that are to blame searched for
(`relay/inbox/rows.py`), and become dead letters.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from psycopg import Cursor

from relay.database.connection import Connection, database_errors, storable
from relay.drains.lease import DrainStart, Lease
from relay.errors import Fenced
from relay.inbox.rows import REFUSALS, columns, write, write_each
from relay.models import Failure, InboxRow, Received
from relay.sql import query


@dataclass(frozen=True, slots=True)
class InboundBatch:
    """A batch that was received and decoded, to be written whole."""

    received: Sequence[Received]
    """All of it, in order."""
    rows: Sequence[tuple[Received, InboxRow]]
    dead: Sequence[tuple[Received, Failure]] = ()
    """What cannot become a row."""

    @property
    def positions(self) -> dict[str, str]:
        return {message.partition: message.position for message in self.received if message.partition}


class Writer:
    """One drain's session with its inbox. Every write names the fence of its lease, and renews the lease.

    Methods raise Fenced when the drain was given up, NotConnected when PostgreSQL is lost. One thread at a time.
    """

    config_changed = False
    """Whether the pipeline was changed since the drain began, as of the last write or look."""
    redeliver = False
    """Whether dead letters are to be tried again, as of the last look."""

    def __init__(
        self, connection: Connection, lease: Lease, begun: DrainStart, on_refused: Literal["dead_letter", "stop"]
    ) -> None:
        self._connection = connection
        self._lease = lease
        self._on_refused = on_refused
        self._revision = begun.revision
        self._inbox = begun.inbox
        self._parameters = {**lease.fence, "lease_seconds": lease.seconds, "inbox": begun.inbox}
        self._sent: _Sent | None = None

    def send(self, arrived: InboundBatch) -> None:
        """Sends a batch in one round trip, and does not wait: PostgreSQL works while the caller receives the next."""
        assert self._sent is None
        sent_at = time.monotonic()
        with database_errors():
            self._sent = self._try_to_send(arrived, sent_at)

    def _try_to_send(self, arrived: InboundBatch, sent_at: float) -> "_Sent":
        try:
            with ExitStack() as stack:
                stack.enter_context(self._connection.pipeline())
                self._connection.execute("begin")
                self._connection.execute(query("durably"))
                rows = [row for _, row in arrived.rows]
                new = self._execute("receive_write", columns(rows)) if rows else None
                fence = self._finish(arrived, len(rows))
                self._connection.execute("commit")
                return _Sent(arrived, sent_at, stack.pop_all(), new, fence)
        except REFUSALS:  # a text that cannot even be sent
            return _Sent(arrived, sent_at)

    def confirm(self) -> "WriteResult":
        """Waits for the batch that was sent: it is committed now."""
        sent, self._sent = self._sent, None
        assert sent is not None
        if sent.fence is not None:
            # The refusals first: some of them would pass for trouble with the server.
            with database_errors(), contextlib.suppress(*REFUSALS):
                sent.pipeline.close()
                self._check(sent.fence, sent.sent_at)
                new = sent.new.fetchall()[0][0] if sent.new else 0
                return WriteResult(sent.arrived.received, len(sent.arrived.rows), new, tuple(sent.arrived.dead))
        self._connection.rollback()
        return self._write_what_can_be(sent.arrived)

    def renew(self) -> None:
        """Nothing came, and the lease is short."""
        sent_at = time.monotonic()
        with database_errors():
            self._check(self._execute("receive_settle", {"delivered": 0, "dead_letters": 0}), sent_at)

    def look(self) -> None:
        """Nothing comes: what people have changed or asked for, or whether the drain was given up. Writes nothing."""
        with database_errors():
            row = self._execute("receive_look", {}).fetchone()
        self.config_changed = row is None or row[0] != self._revision
        self.redeliver = row is not None and row[1]

    def _write_what_can_be(self, arrived: InboundBatch) -> "WriteResult":
        """Searches for the rows that PostgreSQL refuses, and does with them what the pipeline says."""
        try:
            with database_errors(), self._connection.transaction():
                self._hold_fence()
                rows = [row for _, row in arrived.rows]
                refused = [
                    (arrived.rows[index][0], Failure(index, True, "refused", why))
                    for index, why in write_each(self._connection, self._inbox, rows)
                ]
                if refused and self._on_refused == "stop":
                    raise Stopped(*refused[0])
                return self._written(
                    InboundBatch(arrived.received, arrived.rows, [*arrived.dead, *refused]), len(refused)
                )
        except Stopped as stopped:
            end = stopped.failure.index
            before = InboundBatch(arrived.received[:end], arrived.rows[:end])
            with database_errors(), self._connection.transaction():
                self._hold_fence()
                write(self._connection, self._inbox, [row for _, row in before.rows])
                return replace(self._written(before, 0), stopped=stopped)

    def _hold_fence(self) -> None:
        """Locks it, so that nothing after this is written by a drain that was given up."""
        sent_at = time.monotonic()
        self._connection.execute(query("durably"))
        self._check(self._execute("receive_settle", {"delivered": 0, "dead_letters": 0}), sent_at)

    def _written(self, arrived: InboundBatch, refused: int) -> "WriteResult":
        sent_at = time.monotonic()
        stored = len(arrived.rows) - refused
        self._check(self._finish(arrived, stored), sent_at)
        return WriteResult(arrived.received, stored, stored, tuple(arrived.dead))

    def _finish(self, arrived: InboundBatch, stored: int) -> "Cursor[Any]":
        if arrived.dead:
            self._execute("receive_dead_letters", _dead_columns(arrived.dead))
        if arrived.positions:
            positions = {"partitions": list(arrived.positions), "positions": list(arrived.positions.values())}
            self._execute("receive_positions", positions)
        return self._execute("receive_settle", {"delivered": stored, "dead_letters": len(arrived.dead)})

    def _execute(self, name: str, parameters: Mapping[str, object]) -> "Cursor[Any]":
        return self._connection.execute(query(name), {**self._parameters, **parameters})

    def _check(self, fence: "Cursor[Any]", sent_at: float) -> None:
        row = fence.fetchone()
        if row is None:
            drain = self._lease.drain
            raise Fenced(f"drain {drain.number} of pipeline {drain.pipeline!r} was given up")
        self._lease.renewed(sent_at)
        self.config_changed = row[0] != self._revision


class Stopped(Exception):
    """A message that cannot be stored stops its pipeline."""

    def __init__(self, message: Received, failure: Failure) -> None:
        super().__init__(f"message {message.id}: {failure.reason}")
        self.failure = failure


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of a batch. It is committed."""

    received: Sequence[Received]
    """What may be acknowledged."""
    stored: int
    """Rows that are in the inbox now."""
    new: int
    """Those of them that were not there before; where PostgreSQL refused some, all count as new."""
    dead: tuple[tuple[Received, Failure], ...]
    stopped: Stopped | None = None
    """Why nothing after it was written."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """A batch on its way; without a fence, one that could not be sent as a whole."""

    arrived: InboundBatch
    sent_at: float
    pipeline: ExitStack = field(default_factory=ExitStack)
    new: "Cursor[Any] | None" = None
    fence: "Cursor[Any] | None" = None


def _dead_columns(dead: Sequence[tuple[Received, Failure]]) -> dict[str, list[Any]]:
    return dict(zip(_DEAD_PARAMETERS, map(list, zip(*_dead_rows(dead), strict=True)), strict=True))


_DEAD_PARAMETERS = (
    "dead_ids",
    "dead_subjects",
    "dead_keys",
    "dead_headers",
    "dead_bodies",
    "dead_codes",
    "dead_reasons",
)


def _dead_rows(dead: Sequence[tuple[Received, Failure]]) -> Iterator[tuple[Any, ...]]:
    for received, failure in dead:
        headers = {storable(name): storable(value) for name, value in received.headers.items()}
        key = None if received.key is None else storable(received.key)
        yield (
            storable(received.id),
            storable(received.subject),
            key,
            json.dumps(headers),
            received.body,
            failure.code,
            storable(failure.reason),
        )
