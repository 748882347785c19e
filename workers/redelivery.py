"""What a pipeline is requested to deliver once more, besides its live messages.

A drain comes here after its live messages, so that they wait for nothing, and stays for at most half a slice. The same
sink is used, in the same way: what is delivered is settled, what is refused is a dead letter (again), and anything else
is retried by a later drain.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace

import psycopg
import structlog

from relay.backends.sink import ObjectSink, Sink, TransactionalSink
from relay.drains.fence import FencedSession
from relay.drains.lease import DrainResult
from relay.drains.outbox import settlement
from relay.drains.redelivery import Redeliveries, RedeliveryBatch
from relay.inbox.rows import write_each
from relay.models import Failure, InboxRow, Received
from relay.pipelines.config import ForwardConfig
from workers.publisher import Publisher

log = structlog.get_logger(__name__)


class Redelivery:
    """Dead letters and replays of a forward pipeline, after its live messages."""

    def __init__(
        self,
        redeliveries: Redeliveries,
        session: FencedSession,
        config: ForwardConfig,
        sink: Sink,
        publisher: Publisher,
    ) -> None:
        self._redeliveries = redeliveries
        self._session = session
        self._config = config
        self._sink = sink
        self._publisher = publisher

    def run(self, live: DrainResult) -> DrainResult:
        """Delivers for as long as something is requested. When nothing is left, the drain ends as its live part did.

        Raises Fenced, NotConnected (PostgreSQL), ConfigError.
        """
        # An object is named after its first and last message: one that is made of single dead letters must not take the
        # name of one that is made of everything between them.
        max_messages = self._config.pipeline.batch_size
        max_dead_letters = 1 if isinstance(self._sink, ObjectSink) else max_messages
        ends_at = time.monotonic() + self._config.pipeline.slice_ms / 2000
        while not self._publisher.stop.is_set() and not self._session.config_changed:
            batch = self._redeliveries.next(max_messages, max_dead_letters)
            if batch is None:
                return replace(live, progressed=self._publisher.progressed)
            if failure := self._deliver(batch):
                return _later(self._publisher.failed(failure), live)
            if time.monotonic() >= ends_at:
                break
        return DrainResult("more", self._publisher.progressed)

    def _deliver(self, batch: RedeliveryBatch) -> Failure | None:
        """Sends a batch and settles what became of it. Returns what stopped it, if anything did."""
        wire = self._publisher.make_wire(batch.outbox)
        self._publisher.hold_lease()
        started = time.monotonic()
        failure: Failure | None = None
        with suppress(psycopg.Rollback), self._transaction():
            failures = self._publisher.send(self._sink.publish, batch.messages, wire) if batch.messages else []
            settled = settlement(batch.messages, failures, 0)
            failure = settled.failure
            count = settled.delivered + len(settled.dead)
            if failure and not count:
                raise psycopg.Rollback
            self._settle(_first(batch, count) if failure else batch, dict(settled.dead))
        if batch.messages:
            self._publisher.progressed |= bool(count)
            self._publisher.count(batch.messages[0].created_at, settled, time.monotonic() - started)
        return failure

    def _settle(self, batch: RedeliveryBatch, dead: dict[int, Failure]) -> None:
        if batch.replay_id is not None:
            delivered = [message.id for message in batch.messages if message.id not in dead]
            self._redeliveries.settle_replay(batch, delivered, list(dead.items()))
            return
        letters = {message.id: number for message, number in zip(batch.messages, batch.dead_letter_ids, strict=True)}
        delivered = [number for message_id, number in letters.items() if message_id not in dead]
        self._redeliveries.settle_dead_letters(
            delivered, [(letters[message_id], failure) for message_id, failure in dead.items()]
        )

    def _transaction(self) -> AbstractContextManager[object]:
        """A sink that writes into this very database writes in the transaction that settles."""
        transactional = isinstance(self._sink, TransactionalSink) and self._sink.transactional
        return self._session.transaction() if transactional else nullcontext()


def _later(failed: DrainResult, live: DrainResult) -> DrainResult:
    """What could not be delivered once more is retried after a pause that does not delay live messages."""
    if live.outcome == "idle":
        return replace(failed, outcome="later")
    return replace(failed, outcome=live.outcome, retry_seconds=live.retry_seconds)


def _first(batch: RedeliveryBatch, count: int) -> RedeliveryBatch:
    """Its first messages."""
    messages = batch.messages[:count]
    return replace(batch, messages=messages, dead_letter_ids=batch.dead_letter_ids[:count], next_id=messages[-1].id + 1)


def retry_received(session: FencedSession, decode: Callable[[Received], InboxRow | Failure], max_messages: int) -> bool:
    """Decodes dead letters of a reverse pipeline again, and writes what can be stored now.

    One transaction: rows and dead letters, under the fence. Returns whether there may be more;
    not if the pipeline was changed.
    Raises Fenced, NotConnected (PostgreSQL).
    """
    redeliveries = Redeliveries(session)
    letters = redeliveries.received(max_messages)
    if not letters:
        return False
    decoded = [(letter.dead_letter_id, decode(letter.message)) for letter in letters]
    rows = [(number, row) for number, row in decoded if isinstance(row, InboxRow)]
    refused = [(number, failure) for number, failure in decoded if isinstance(failure, Failure)]
    with session.transaction():
        for index, why in write_each(session.connection, session.start.inbox, [row for _, row in rows]):
            refused.append((rows[index][0], Failure(index, True, "refused", why)))
        still_dead = {number for number, _ in refused}
        redeliveries.settle_dead_letters([number for number, _ in rows if number not in still_dead], refused)
    for number, failure in refused:
        log.error("dead letter again", dead_letter=number, code=failure.code, reason=failure.reason)
    return not session.config_changed
