"""Many requests, one commit: what waits for an inbox is written together.

No timer: a request that finds no other waiting is written at once, and those that arrive while it commits form the next
batch. So a lone request is quick, and batches grow with the load.

No inbox waits for another: a few threads write, each one inbox at a time. An inbox whose table is locked, or whose
triggers are slow, is known by its last batch, and such inboxes together get no more than half of the threads. After a
lock or a time limit, an inbox is paused for a moment: its senders are told at once, and hold nothing meanwhile.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import psycopg
import structlog

from relay.database.connection import Connection, connect, database_errors
from relay.errors import NotConnected, RelayError
from relay.inbox.rows import REFUSALS, reason, write
from relay.models import InboxRow
from relay.reasons import reason_of
from relay.settings import Settings
from relay.sql import query
from relay.web.metrics import ApiMetrics

log = structlog.get_logger(__name__)

WRITERS = 8
SLOW_WRITERS = WRITERS // 2
SLOW_SECONDS = 1.0
PAUSE_SECONDS = 2.0
_INBOX_ERRORS = frozenset({"locked", "timeout"})
"""What PostgreSQL says of one table, not of itself."""
BATCH_LIMIT = 500
BATCH_BYTES_LIMIT = 4 * 1024 * 1024


class Outcome(NamedTuple):
    """What became of a row. Whatever it says is committed."""

    state: Literal["stored", "known", "other", "refused"]
    """New; there before; there is another message under this id; PostgreSQL cannot hold it."""
    reason: str = ""


class Waiting(NamedTuple):
    row: InboxRow
    outcome: "Future[Outcome]"


@dataclass(slots=True)
class _Box:
    """One inbox: what waits for it, and how it was last."""

    name: str
    waiting: deque[Waiting] = field(default_factory=deque)
    busy: bool = False
    slow: bool = False
    paused_until: float = 0.0


class Writer:
    """`write` from any thread; `run` in each of `WRITERS` threads, until `close`. At most one session for each.

    The caller bounds what waits: see `relay.web.webhooks.limits.Room`.
    """

    def __init__(self, settings: Settings, metrics: ApiMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._sessions: list[Connection] = []
        """Those that are free; the one used last is used first, so there are no more than needed."""
        self._boxes: dict[str, _Box] = {}
        self._due: deque[_Box] = deque()
        """Those with something to write that no thread writes, in order."""
        self._slow_writers = 0
        self._bell = threading.Condition()
        self._closed = False
        self._troubles: dict[str, str] = {}
        self.trouble: str | None = None
        """Why the last attempt to write to some inbox failed; for people."""

    def write(self, inbox: str, row: InboxRow) -> "Future[Outcome]":
        """The future raises RelayError if nothing is known of what became of it: the sender has to come again."""
        outcome: Future[Outcome] = Future()
        with self._bell:
            box = self._boxes.setdefault(inbox, _Box(inbox))
            if self._closed:
                outcome.set_exception(NotConnected("the writer is closed", code="closed"))
            elif time.monotonic() < box.paused_until:
                outcome.set_exception(NotConnected(f"paused after {self._troubles.get(inbox)}", code="paused"))
            else:
                box.waiting.append(Waiting(row, outcome))
                if not box.busy and len(box.waiting) == 1:
                    self._due.append(box)
                    self._bell.notify()
        return outcome

    def close(self) -> None:
        """What waits is still written; `run` returns then."""
        with self._bell:
            self._closed = True
            self._bell.notify_all()

    def run(self) -> None:
        try:
            while box := self._take():
                slow, started = box.slow, time.monotonic()
                error = None
                try:
                    if batch := self._batch(box):
                        error = self._settle(box.name, batch)
                finally:
                    self._give_back(box, slow, time.monotonic() - started, error)
        finally:
            self._hang_up()

    def _take(self) -> _Box | None:
        """One that is due, for this thread alone; None when the end has come."""
        with self._bell:
            while True:
                for box in self._due:
                    if not box.slow or self._slow_writers < SLOW_WRITERS:
                        self._due.remove(box)
                        box.busy = True
                        self._slow_writers += box.slow
                        return box
                if self._closed and not self._due:
                    return None
                self._bell.wait()

    def _batch(self, box: _Box) -> list[Waiting]:
        """What waits, within limits."""
        batch: list[Waiting] = []
        size = 0
        with self._bell:
            while box.waiting and len(batch) < BATCH_LIMIT and size < BATCH_BYTES_LIMIT:
                one = box.waiting.popleft()
                # Otherwise its sender no longer waits, and will send it again.
                if one.outcome.set_running_or_notify_cancel():
                    batch.append(one)
                    size += len(one.row.payload)
        return batch

    def _give_back(self, box: _Box, was_slow: bool, seconds: float, error: Exception | None) -> None:
        blocked = isinstance(error, NotConnected) and error.code in _INBOX_ERRORS
        refused: list[Waiting] = []
        with self._bell:
            box.busy = False
            self._slow_writers -= was_slow
            box.slow = blocked or seconds > SLOW_SECONDS
            if blocked:
                box.paused_until = time.monotonic() + PAUSE_SECONDS
                refused, box.waiting = list(box.waiting), deque()
            if box.waiting:
                self._due.append(box)
            self._bell.notify_all() if self._closed or was_slow else self._bell.notify()
        for one in refused:
            if error and one.outcome.set_running_or_notify_cancel():
                one.outcome.set_exception(error)

    def _settle(self, inbox: str, batch: Sequence[Waiting]) -> Exception | None:
        """Tells every sender what became of its row; the error if that is not known."""
        try:
            outcomes = self._written(inbox, [one.row for one in batch])
        except Exception as error:
            if isinstance(error, RelayError):
                reason = str(error)
                log.error("cannot write", inbox=inbox, reason=reason)
            else:
                reason = type(error).__name__
                log.exception("bug in the writer", inbox=inbox)
            self._tell(inbox, f"inbox {inbox}: {reason}")
            for one in batch:
                one.outcome.set_exception(error)
            return error
        if inbox in self._troubles:
            self._tell(inbox, None)
        for one, outcome in zip(batch, outcomes, strict=True):
            one.outcome.set_result(outcome)
        return None

    def _tell(self, inbox: str, trouble: str | None) -> None:
        with self._bell:
            self._troubles.pop(inbox, None)
            if trouble:
                self._troubles[inbox] = trouble
            self.trouble = next(iter(self._troubles.values()), None)

    def _written(self, inbox: str, rows: Sequence[InboxRow]) -> list[Outcome]:
        until = time.monotonic() + self._settings.statement_timeout_seconds
        if kept := self._kept():
            try:
                return self._written_on(kept, inbox, rows, until)
            except NotConnected as error:
                # Ended while it was idle, as servers and firewalls do, or its server became a standby. Senders such as
                # GitHub do not come again, and a row that was stored all the same is known by its id.
                if error.code in _INBOX_ERRORS:
                    raise
                log.info("session lost, another is opened", inbox=inbox, reason=str(error))
        return self._written_on(connect(self._settings, "tide-relay api"), inbox, rows, until)

    def _written_on(self, session: Connection, inbox: str, rows: Sequence[InboxRow], until: float) -> list[Outcome]:
        try:
            outcomes = self._write(session, inbox, rows, until)
        except Exception as error:
            self._sessions.append(session)
            if not (isinstance(error, NotConnected) and error.code in _INBOX_ERRORS):
                self._hang_up()  # the others have probably been lost with it
            raise
        self._sessions.append(session)
        return outcomes

    def _kept(self) -> Connection | None:
        with contextlib.suppress(IndexError):
            while (session := self._sessions.pop()).closed:
                pass
            return session
        return None

    def _write(self, session: Connection, inbox: str, rows: Sequence[InboxRow], until: float) -> list[Outcome]:
        if time.monotonic() > until:
            raise NotConnected(f"PostgreSQL took too long for {inbox}", code="timeout")
        with database_errors():
            try:
                return self._write_together(session, inbox, rows)
            except REFUSALS as error:
                if len(rows) == 1:
                    return [Outcome("refused", reason(error))]
        # One of them is to blame: by halves, each in a transaction of its own.
        middle = len(rows) // 2
        first = self._write(session, inbox, rows[:middle], until)
        return [*first, *self._write(session, inbox, rows[middle:], until)]

    def _write_together(self, session: Connection, inbox: str, rows: Sequence[InboxRow]) -> list[Outcome]:
        with session.pipeline(), session.transaction():
            self._metrics.batches.inc()
            session.execute(query("api_lock_timeout"))
            if write(session, inbox, rows) == len(rows):
                return [Outcome("stored")] * len(rows)
            parameters = {
                "inbox": inbox,
                "event_ids": [row.event_id for row in rows],
                "payloads": [row.payload for row in rows],
            }
            looked = session.execute(query("api_look"), parameters).fetchall()
        return _judged(rows, looked)

    def _hang_up(self) -> None:
        """Ends every free session."""
        with contextlib.suppress(IndexError):
            while True:
                session = self._sessions.pop()
                try:
                    session.close()
                except psycopg.Error as error:
                    log.debug("session ended badly", reason=reason_of(error))


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
