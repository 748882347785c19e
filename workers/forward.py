"""The forward drain: outbox -> records -> sink -> settle, batch after batch.

While the sink works on one batch, PostgreSQL settles the one before and reads the next, in one round trip.
What became of a batch is a value, so a sink's failure passes through the same path as its success.
"""

import time
from dataclasses import replace
from typing import Any, Literal

import psycopg
import structlog

from relay.backends.sink import ObjectSink, Sink, TransactionalSink
from relay.database.connection import Connection
from relay.drains import lease as ownership
from relay.drains.lease import DrainResult, DrainStart, Lease
from relay.drains.outbox import Batch, Reader, Settlement, settlement
from relay.drains.redelivery import Redeliveries
from relay.errors import NotConnected
from relay.models import Message
from relay.pipelines.config import parse_forward
from workers.objects import GatherDrain
from workers.publisher import Delivery
from workers.redelivery import Redelivery
from workers.resources import Resources

log = structlog.get_logger(__name__)

# A busy drain that finds nothing waits once before it arms the bell: at thousands of messages a second, arming and
# disarming for every gap would cost more than the messages.
LINGER_SECONDS = 0.002


def drain(resources: Resources, connection: Connection, lease: Lease, begun: DrainStart) -> DrainResult:
    """Drains until the outbox is empty, the slice is over, the configuration changes, or the process stops.

    Raises Fenced, NotConnected (PostgreSQL), ConfigError. A sink's failure is in the value returned.
    """
    config = parse_forward(begun.config, resolved=True)
    lease.seconds = config.pipeline.visibility_timeout_ms / 1000
    pipeline = lease.drain.pipeline
    try:
        sink = resources.sinks.take(
            pipeline, begun.revision, lambda: config.make_sink(pipeline), lambda made: made.open()
        )
    except NotConnected as error:
        log.warning("sink cannot be opened", reason=str(error))
        return ownership.failed(begun.failures, error.code, str(error))
    keep = False
    try:
        reader = Reader(connection, lease, begun, config.pipeline.batch_size)
        parts = (resources, lease, begun, config, sink, reader)
        work = _kind(sink, connection)(*parts)
        behind = work.begin()
        ended = work.run() if behind is None else work.failed(behind)
        keep = work.sink_works
        if keep and begun.redeliver and ended.outcome != "failed" and not reader.config_changed:
            keep = False
            again = Redelivery(Redeliveries(connection, lease, begun), ended, *parts)
            ended = again.run()
            keep = again.sink_works
    finally:
        if keep:
            resources.sinks.give_back(pipeline, begun.revision, sink)
        else:
            sink.close()
    return ended


def _kind(sink: Sink, connection: Connection) -> type[Delivery]:
    """How the sink wants to be used."""
    if isinstance(sink, TransactionalSink) and sink.transactional:
        sink.use_transaction(connection)
        return JoinedDrain
    return GatherDrain if isinstance(sink, ObjectSink) else ForwardDrain


class ForwardDrain(Delivery):
    """Publishes and settles batch after batch."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._batches = 0
        self._bell_armed = True

    def run(self) -> DrainResult:
        settled: Settlement | None = None
        batch = self._reader.read(self._offset_id)
        while True:
            if not batch.messages:
                batch = self._look_again(batch, settled)
                settled = None
                if not batch.messages:
                    return DrainResult("again" if batch.open_publishers else "idle", self._progressed)
            settled, batch = self._deliver(batch.messages, settled)
            self._offset_id = settled.offset_id
            self._progressed |= bool(settled.delivered or settled.dead)
            if settled.failure or self._is_over():
                return self._finish(settled)

    def _deliver(self, messages: list[Message], before: Settlement | None) -> tuple[Settlement, Batch]:
        """What became of the messages, to be settled with the next question; and the batch after them."""
        self._reader.ask(messages[-1].id, before, self._disarm())
        try:
            settled = self._publish(messages)
        finally:
            batch = self._reader.receive()
        return settled, batch

    def _disarm(self) -> Literal["disarm"] | None:
        """The first batch after a sleep leaves the bell armed: at a low rate it then never has to be written."""
        self._batches += 1
        if not self._bell_armed or self._batches == 1:
            return None
        self._bell_armed = False
        return "disarm"

    def _look_again(self, empty: Batch, settled: Settlement | None) -> Batch:
        """Nothing lies between offset and horizon: linger if busy, then arm the bell and look once more."""
        settled = self._up_to(empty.horizon, settled)
        if self._batches > 1 and not self._tools.stop.wait(LINGER_SECONDS):
            batch = self._reader.read(self._offset_id, settled)
            if batch.messages:
                return batch
            settled = self._up_to(batch.horizon, None)
        self._bell_armed = True
        return self._reader.read(self._offset_id, settled, "arm")

    def _up_to(self, horizon: int, settled: Settlement | None) -> Settlement | None:
        """Moves the offset over ids that no message has: they were rolled back."""
        if horizon > self._offset_id:
            self._offset_id = horizon
            return replace(settled, offset_id=horizon) if settled else Settlement(horizon)
        return settled

    def _publish(self, messages: list[Message]) -> Settlement:
        self._hold_lease(self._reader.receive)
        return self._attempt(messages)

    def _attempt(self, messages: list[Message]) -> Settlement:
        started = time.monotonic()
        failures = self._send(self._sink.publish, messages)
        settled = settlement(messages, failures, self._offset_id)
        self._count(messages[0].created_at, settled, time.monotonic() - started)
        return settled

    def _finish(self, settled: Settlement) -> DrainResult:
        if settled.delivered or settled.dead:
            self._reader.settle(settled)
        return self.failed(settled.failure) if settled.failure else DrainResult("more", self._progressed)


class JoinedDrain(ForwardDrain):
    """Publishes into the pipeline's own database: each batch and its settle are one transaction."""

    def _deliver(self, messages: list[Message], before: Settlement | None) -> tuple[Settlement, Batch]:  # noqa: ARG002
        """`before` is written already."""
        self._hold_lease()
        with self._reader.joined() as joined:
            settled = self._attempt(messages)
            if not settled.delivered and not settled.dead:
                raise psycopg.Rollback
            joined.settle(settled)
        self._progressed |= bool(settled.delivered or settled.dead)
        written = Settlement(settled.offset_id, failure=settled.failure)
        return written, self._reader.read(messages[-1].id, None, self._disarm())
