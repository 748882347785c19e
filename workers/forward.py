"""The forward drain: outbox -> records -> sink -> settle, batch after batch.

While the sink works on one batch, PostgreSQL settles the one before and reads the next, in one round trip.
What became of a batch is a value, so a sink's failure passes through the same path as its success.
"""

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

import structlog

from relay import ownership
from relay.db import Connection
from relay.errors import NotConnected
from relay.metrics import PipelineLabels, worker_metrics
from relay.models import Failure, Message
from relay.outbox import Batch, Reader, Settlement, settlement
from relay.ownership import Begun, End, Lease
from relay.pipelines import ForwardConfig, parse_forward
from relay.secret_refs import mask
from relay.sinks import Sink
from relay.wire import Wire
from workers.tools import Tools

log = structlog.get_logger(__name__)

# A busy drain that finds nothing waits once before it arms the bell: at thousands of messages a second, arming and
# disarming for every gap would cost more than the messages.
LINGER_SECONDS = 0.002


def drain(tools: Tools, connection: Connection, lease: Lease, begun: Begun) -> End:
    """Drains until the outbox is empty, the slice is over, the configuration changes, or the process stops.

    Raises Fenced, NotConnected (PostgreSQL), ConfigError. A sink's failure is in the value returned.
    """
    config = parse_forward(begun.config, resolved=True)
    pipeline = lease.drain.pipeline
    try:
        sink = tools.sinks.take(pipeline, begun.revision, lambda: config.make_sink(pipeline))
    except NotConnected as error:
        log.warning("sink cannot be opened", reason=str(error))
        return ownership.failed(begun.failures, error.code, str(error))
    reader = Reader(connection, lease, begun, config.pipeline.batch_size)
    work = ForwardDrain(tools, lease, begun, config, sink, reader)
    try:
        ended = work.run()
    finally:
        if work.sink_works:
            tools.sinks.give_back(pipeline, begun.revision, sink)
        else:
            sink.close()
    return ended


class ForwardDrain:
    """One drain in progress."""

    def __init__(
        self, tools: Tools, lease: Lease, begun: Begun, config: ForwardConfig, sink: Sink, reader: Reader
    ) -> None:
        self._tools = tools
        self._lease = lease
        self._begun = begun
        self._sink = sink
        self._reader = reader
        self._wire = Wire(
            outbox=begun.outbox,
            pipeline=lease.drain.pipeline,
            subject_template=config.subject_template,
            wire_format=config.wire_format,
            keeps_headers=sink.features.keeps_headers,
            binding=sink.features.cloudevents_binding,
            cloudevents_source=config.pipeline.cloudevents_source,
            cloudevents_type=config.pipeline.cloudevents_type,
        )
        self._publish_limit_seconds = config.sink.timeout_ms / 1000
        self._slice_ends = time.monotonic() + config.pipeline.slice_ms / 1000
        self._labels = PipelineLabels(lease.drain.pipeline, "forward", config.pipeline.sink_type)
        self._offset_id = begun.offset_id
        self._batches = 0
        self._progressed = False
        self._bell_armed = True
        self.sink_works = True

    def run(self) -> End:
        settled: Settlement | None = None
        batch = self._reader.read(self._offset_id)
        while True:
            if not batch.messages:
                batch = self._look_again(batch, settled)
                settled = None
                if not batch.messages:
                    return End("again" if batch.open_publishers else "idle", self._progressed)
            self._reader.ask(batch.messages[-1].id, settled, self._disarm())
            try:
                settled = self._publish(batch.messages)
            finally:
                batch = self._reader.receive()
            self._offset_id = settled.offset_id
            self._progressed |= bool(settled.delivered or settled.dead)
            if settled.failure or self._is_over():
                return self._finish(settled)

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
        self._hold_lease()
        started = time.monotonic()
        failures = self._send(messages)
        settled = settlement(messages, failures, self._offset_id)
        self._count(messages, settled, time.monotonic() - started)
        return settled

    def _hold_lease(self) -> None:
        """No publish outlives its lease: where the rest of it is too short, it is renewed first."""
        while not self._lease.covers(self._publish_limit_seconds):
            self._reader.receive()
            self._reader.settle(Settlement(self._offset_id))

    def _send(self, messages: list[Message]) -> list[Failure]:
        try:
            return self._sink.publish(self._wire.records(messages))
        except NotConnected as error:
            self.sink_works = False
            return [Failure(0, False, error.code, str(error))]
        except Exception as error:  # a sink's bug must not cost the drain its end
            self.sink_works = False
            log.exception("bug in a sink", sink_type=self._labels.sink_type)
            return [Failure(0, False, "internal", mask(f"{type(error).__name__}: {error}"))]

    def _is_over(self) -> bool:
        return time.monotonic() >= self._slice_ends or self._reader.config_changed or self._tools.stop.is_set()

    def _finish(self, settled: Settlement) -> End:
        if settled.delivered or settled.dead:
            self._reader.settle(settled)
        if settled.failure is None:
            return End("more", self._progressed)
        failure = settled.failure
        log.warning("publish failed", code=failure.code, reason=failure.reason, after_message=settled.offset_id)
        return ownership.failed(
            self._begun.failures,
            failure.code,
            failure.reason,
            progressed=self._progressed,
            asked_seconds=failure.retry_after_seconds,
        )

    def _count(self, messages: list[Message], settled: Settlement, seconds: float) -> None:
        metrics = worker_metrics()
        metrics.publish_seconds.labels(*self._labels).observe(seconds)
        metrics.messages_published.labels(*self._labels).inc(settled.delivered)
        if settled.delivered:
            age = datetime.now(UTC) - messages[0].created_at
            metrics.delivery_seconds.labels(*self._labels).observe(max(0.0, age.total_seconds()))
        for message_id, dead in settled.dead:
            metrics.dead_letters.labels(*self._labels).inc()
            metrics.failures.labels(*self._labels, dead.code).inc()
            log.error("dead letter", message=message_id, code=dead.code, reason=dead.reason)
