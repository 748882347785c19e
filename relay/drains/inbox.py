"""Writing a received batch to its inbox, once, with its positions.

The rule that binds this module: rows, dead letters and positions of a batch are one transaction, which names the fence
of its drain. A batch is written as it is; only when PostgreSQL refuses it are the rows that are to blame searched for
(`relay/inbox/rows.py`), and become dead letters.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from relay.database.arrays import Texts
from relay.database.connection import database_errors, storable
from relay.drains.fence import Cursor, FencedSession
from relay.inbox.rows import NO_ROWS, RowErrors, columns, write, write_each
from relay.models import Failure, InboxRow, Received
from relay.wire.decode import LONGEST_EVENT_ID


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
    """Writes batches to one inbox for a drain. Every write names the fence, and renews the lease.

    Methods raise Fenced when the drain was abandoned, NotConnected when PostgreSQL is lost. One thread at a time.
    """

    redeliver = False
    """Whether dead letters are to be retried, as of the last `check_pipeline`."""

    def __init__(self, session: FencedSession, on_refused: Literal["dead_letter", "stop"]) -> None:
        self._session = session
        self._connection = session.connection
        self._inbox = session.start.inbox
        self._on_refused = on_refused
        self._sent: _Sent | None = None

    def store_positions(self, positions: Mapping[str, str]) -> None:
        """Stores where a source is, without anything that came from it."""
        if positions:
            with database_errors(), self._session.transaction():
                self._settle(0, 0)  # locks the fence, so that no abandoned drain writes after this
                self._place(positions)

    def send(self, batch: InboundBatch) -> None:
        """Sends a batch in one round trip, and does not wait: PostgreSQL works while the caller receives the next."""
        assert self._sent is None
        sent_at = time.monotonic()
        with database_errors():
            self._sent = self._try_to_send(batch, sent_at)

    def _try_to_send(self, batch: InboundBatch, sent_at: float) -> "_Sent":
        with RowErrors(), ExitStack() as stack:
            stack.enter_context(self._connection.pipeline())
            self._connection.execute("begin")
            rows = columns([row for _, row in batch.rows]) if batch.rows else NO_ROWS
            counts = {"delivered": len(batch.rows), "dead_letters": len(batch.dead)}
            written = self._session.execute("receive_batch", **rows, **_named(batch.positions), **counts)
            if batch.dead:
                self._session.execute("receive_dead_letters", **_dead_columns(batch.dead))
            self._connection.execute("commit")
            return _Sent(batch, sent_at, stack.pop_all(), written)
        return _Sent(batch, sent_at)  # it has a text that cannot even be sent

    def confirm(self) -> "WriteResult":
        """Waits until the batch that was sent is committed."""
        sent, self._sent = self._sent, None
        assert sent is not None
        if sent.written is not None:
            # The refusals first: some of them would pass for trouble with the server.
            with database_errors(), RowErrors():
                sent.pipeline.close()
                _, new = self._session.check_revision(sent.written)
                self._session.lease.renewed(sent.sent_at)
                return WriteResult(sent.batch.received, len(sent.batch.rows), new, tuple(sent.batch.dead))
        self._connection.rollback()
        return self._write_what_can_be(sent.batch)

    def renew(self) -> None:
        """Renews the lease, when nothing came that would do it."""
        with database_errors():
            self._settle(0, 0)

    def check_pipeline(self) -> None:
        """Reads whether the pipeline was changed, or dead letters are to be retried. Writes nothing."""
        with database_errors():
            self.redeliver = self._session.check_revision(self._session.execute("receive_look"))[1]

    def _write_what_can_be(self, batch: InboundBatch) -> "WriteResult":
        """Searches for the rows that PostgreSQL refuses, and does with them what the pipeline says."""
        try:
            with self._session.transaction():
                self._settle(0, 0)  # locks the fence, so that no abandoned drain writes after this
                rows = [row for _, row in batch.rows]
                refused = [
                    (batch.rows[index][0], Failure(index, True, "refused", why))
                    for index, why in write_each(self._connection, self._inbox, rows)
                ]
                if refused and self._on_refused == "stop":
                    raise Stopped(*refused[0])
                dead = [*batch.dead, *refused]
                self._bury(dead)
                return self._finished(InboundBatch(batch.received, batch.rows, dead), len(refused))
        except Stopped as stopped:
            end = stopped.failure.index
            before = InboundBatch(batch.received[:end], batch.rows[:end])
            with self._session.transaction():
                self._settle(0, 0)
                write(self._connection, self._inbox, [row for _, row in before.rows])
                return replace(self._finished(before, 0), stopped=stopped)

    def _settle(self, delivered: int, dead_letters: int) -> None:
        sent_at = time.monotonic()
        fence = self._session.execute("receive_settle", delivered=delivered, dead_letters=dead_letters)
        self._session.check_renewal(fence, sent_at)

    def _finished(self, batch: InboundBatch, refused: int) -> "WriteResult":
        sent_at = time.monotonic()
        stored = len(batch.rows) - refused
        self._session.check_renewal(self._finish(batch, stored), sent_at)
        return WriteResult(batch.received, stored, stored, tuple(batch.dead))

    def _bury(self, dead: Sequence[tuple[Received, Failure]]) -> None:
        """Keeps dead letters one by one; one that PostgreSQL cannot keep as it came, without its headers and key."""
        for received, failure in dead:
            bare = received._replace(headers={}, key=None, subject=received.subject[:LONGEST_EVENT_ID])
            with RowErrors():
                self._bury_one(received, failure)
                continue
            self._bury_one(bare, failure)

    def _bury_one(self, received: Received, failure: Failure) -> None:
        with self._connection.transaction():
            self._session.execute("receive_dead_letters", **_dead_columns([(received, failure)]))

    def _finish(self, batch: InboundBatch, stored: int) -> Cursor:
        if batch.positions:
            self._place(batch.positions)
        return self._session.execute("receive_settle", delivered=stored, dead_letters=len(batch.dead))

    def _place(self, positions: Mapping[str, str]) -> None:
        self._session.execute("receive_positions", **_named(positions))


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
    """A batch on its way; if nothing is written, one that could not be sent as a whole."""

    batch: InboundBatch
    sent_at: float
    pipeline: ExitStack = field(default_factory=ExitStack)
    written: Cursor | None = None


def _named(positions: Mapping[str, str]) -> dict[str, Texts]:
    return {"partitions": Texts(list(positions)), "positions": Texts(list(positions.values()))}


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


def _event_id(text: str) -> str:
    """As an index can hold it: a sender may have made it as long as a message."""
    text = storable(text)
    if len(text) <= LONGEST_EVENT_ID:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text[: LONGEST_EVENT_ID - len(digest) - 1]}~{digest}"


def _dead_rows(dead: Sequence[tuple[Received, Failure]]) -> Iterator[tuple[Any, ...]]:
    for received, failure in dead:
        headers = {storable(name): storable(value) for name, value in received.headers.items()}
        key = None if received.key is None else storable(received.key)
        yield (
            _event_id(received.id),
            storable(received.subject),
            key,
            json.dumps(headers),
            received.body,
            failure.code,
            storable(failure.reason),
        )
