"""What a pipeline is asked to deliver once more, beside its live messages.

A drain comes here after its live messages, so that they wait for nothing, and stays for at most half a slice. The same
sink is used, in the same way: what is delivered is settled, what is refused is a dead letter (again), and anything else
is tried again by a later drain.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from typing import Any

import psycopg
import structlog

from relay.backends.sink import ObjectSink, TransactionalSink
from relay.database.connection import Connection, database_errors
from relay.drains.lease import DrainResult, DrainStart, Lease
from relay.drains.outbox import settlement
from relay.drains.redelivery import Again, Redeliveries
from relay.inbox.rows import write_each
from relay.models import Failure, InboxRow, Received
from workers.publisher import Delivery

log = structlog.get_logger(__name__)


class Redelivery(Delivery):
    """Dead letters and replays of a forward pipeline, after its live messages."""

    def __init__(self, asked: Redeliveries, live: DrainResult, *parts: Any) -> None:
        super().__init__(*parts)
        self._asked = asked
        self._live = live
        self._progressed = live.progressed

    def run(self) -> DrainResult:
        """For as long as something is asked for. When nothing is any more, the drain ends as its live part did."""
        # An object is named after its first and last message: one that is made of single dead letters must not take the
        # name of one that is made of everything between them.
        dead_letters_at_once = 1 if isinstance(self._sink, ObjectSink) else self._config.pipeline.batch_size
        ends_at = time.monotonic() + self._config.pipeline.slice_ms / 2000
        while not self._tools.stop.is_set() and not self._asked.config_changed:
            again = self._asked.next(self._config.pipeline.batch_size, dead_letters_at_once)
            if again is None:
                return replace(self._live, progressed=self._progressed)
            if failure := self._deliver(again):
                return self._later(self.failed(failure))
            if time.monotonic() >= ends_at:
                break
        return DrainResult("more", self._progressed)

    def _later(self, failed: DrainResult) -> DrainResult:
        """What could not be delivered once more is tried again after a pause, which no live message waits out."""
        if self._live.outcome == "idle":
            return replace(failed, outcome="later")
        return replace(failed, outcome=self._live.outcome, retry_seconds=self._live.retry_seconds)

    def _deliver(self, again: Again) -> Failure | None:
        """Sends a batch and settles what became of it. Returns what stopped it, if anything did."""
        self._wire = self._make_wire(again.outbox)
        self._hold_lease()
        started = time.monotonic()
        failure: Failure | None = None
        with suppress(psycopg.Rollback), self._together():
            failures = self._send(self._sink.publish, again.messages) if again.messages else []
            settled = settlement(again.messages, failures, 0)
            failure = settled.failure
            count = settled.delivered + len(settled.dead)
            if failure and not count:
                raise psycopg.Rollback
            self._settle(_first(again, count) if failure else again, dict(settled.dead))
        if again.messages:
            self._progressed |= bool(count)
            self._count(again.messages[0].created_at, settled, time.monotonic() - started)
        return failure

    def _settle(self, again: Again, dead: dict[int, Failure]) -> None:
        if again.replay_id is not None:
            delivered = [message.id for message in again.messages if message.id not in dead]
            self._asked.settle_replay(again, delivered, list(dead.items()))
            return
        letters = {message.id: number for message, number in zip(again.messages, again.dead_letter_ids, strict=True)}
        delivered = [number for message_id, number in letters.items() if message_id not in dead]
        self._asked.settle_dead_letters(
            delivered, [(letters[message_id], failure) for message_id, failure in dead.items()]
        )

    def _together(self) -> AbstractContextManager[object]:
        """A sink that writes into this very database writes in the transaction that settles."""
        transactional = isinstance(self._sink, TransactionalSink) and self._sink.transactional
        return self._reader.joined() if transactional else nullcontext()


def _first(again: Again, count: int) -> Again:
    """Its first messages."""
    messages = again.messages[:count]
    return replace(again, messages=messages, dead_letter_ids=again.dead_letter_ids[:count], next_id=messages[-1].id + 1)


def retry_received(
    connection: Connection,
    lease: Lease,
    begun: DrainStart,
    decode: Callable[[Received], InboxRow | Failure],
    max_messages: int,
) -> bool:
    """Decodes dead letters of a reverse pipeline again, and writes what can be stored now.

    One transaction: rows and dead letters, under the fence. Returns whether there may be more;
    not if the pipeline was changed.
    Raises Fenced, NotConnected (PostgreSQL).
    """
    asked = Redeliveries(connection, lease, begun)
    letters = asked.received(max_messages)
    if not letters:
        return False
    decoded = [(letter.dead_letter_id, decode(letter.message)) for letter in letters]
    rows = [(number, row) for number, row in decoded if isinstance(row, InboxRow)]
    refused = [(number, failure) for number, failure in decoded if isinstance(failure, Failure)]
    with database_errors(), connection.transaction():
        for index, why in write_each(connection, begun.inbox, [row for _, row in rows]):
            refused.append((rows[index][0], Failure(index, True, "refused", why)))
        still_dead = {number for number, _ in refused}
        asked.settle_dead_letters([number for number, _ in rows if number not in still_dead], refused)
    for number, failure in refused:
        log.error("dead letter again", dead_letter=number, code=failure.code, reason=failure.reason)
    return not asked.config_changed
