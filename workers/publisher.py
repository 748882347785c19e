"""What every forward loop holds: it keeps the lease, sends to the sink, and counts."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property

import structlog
from prometheus_client import Counter, Histogram

from relay.backends.sink import Sink, TransactionalSink
from relay.drains.caution import keep_caution
from relay.drains.fence import FencedSession
from relay.drains.lease import DrainResult, failed
from relay.drains.outbox import Reader, Settlement, settlement
from relay.errors import ConfigError, NotConnected, RelayError
from relay.models import Failure, Message, Record
from relay.pipelines.config import ForwardConfig
from relay.process.metrics import PipelineLabels
from relay.process.metrics.workers import worker_metrics
from relay.process.stop import Stop
from relay.process.unforeseen import INTERNAL, described, log_bug
from relay.wire.encode import Wire
from workers.encoding import encode
from workers.isolation import Isolation, Take

log = structlog.get_logger(__name__)

# More would change nothing: the first may have been slow, by chance.
RENEWALS = 5


class Publisher:
    """One forward drain in progress, however it goes from batch to batch."""

    offset_id: int
    """Everything up to here is settled, or will be by the next write."""
    progressed = False
    """Whether any message was settled."""
    sink_works = True
    """Whether the sink can be used by the next drain."""
    isolated = False
    """Whether the last `send` had to open the sink again, to find a message that is to blame for a bug."""

    def __init__(self, stop: Stop, session: FencedSession, config: ForwardConfig, sink: Sink, reader: Reader) -> None:
        self.stop = stop
        self.offset_id = session.start.offset_id
        self._session = session
        self._config = config
        self._sink = sink
        self._reader = reader
        self._wire = self.make_wire(session.start.outbox)
        self._publish_limit_seconds = config.sink.timeout_ms / 1000
        self._slice_ends = time.monotonic() + config.pipeline.slice_ms / 1000
        self._labels = PipelineLabels(session.lease.drain.pipeline, "forward", config.pipeline.sink_type)

    @property
    def sink_keeps_offset(self) -> bool:
        return self._sink.keeps_offset

    def make_wire(self, outbox: str) -> Wire:
        """The wire format of the messages of an outbox."""
        pipeline, features = self._config.pipeline, self._sink.features
        return Wire(
            outbox=outbox,
            pipeline=self._session.lease.drain.pipeline,
            subject_template=self._config.subject_template,
            wire_format=self._config.wire_format,
            keeps_headers=features.keeps_headers,
            binding=features.cloudevents_binding,
            cloudevents_source=pipeline.cloudevents_source,
            cloudevents_type=pipeline.cloudevents_type,
        )

    def begin(self) -> Failure | None:
        """The sink may be further than PostgreSQL knows: what it has in one transaction with its offset is settled."""
        try:
            progress = self._sink.begin(self._session.lease.drain, self.offset_id)
        except NotConnected as error:
            self.sink_works = False
            return Failure(0, False, error.code, str(error))
        keep_caution(self._session, self._sink.caution)
        if progress.offset_id > self.offset_id:
            log.info("sink is ahead of the offset", offset=self.offset_id, sink=progress.offset_id)
            self.offset_id = progress.offset_id
            self._reader.settle(Settlement(progress.offset_id, dead=progress.dead))
        return None

    def hold_lease(self, before_renewal: Callable[[], object] = lambda: None) -> None:
        """No publish outlives its lease: where the rest of it is too short, it is renewed first."""
        renewals = 0
        while not self._session.lease.covers(self._publish_limit_seconds):
            if renewals == RENEWALS:
                raise self._lease_too_short()
            before_renewal()
            self._reader.settle(Settlement(self.offset_id))
            renewals += 1

    def _lease_too_short(self) -> ConfigError:
        lease = self._session.lease
        return ConfigError(
            f"pipeline {lease.drain.pipeline!r}: the lease of {lease.seconds:g} s was renewed {RENEWALS} times, and "
            f"each time less than {self._publish_limit_seconds:g} s, the limit of one publish, were left when "
            "PostgreSQL had answered: lower timeout_ms or raise visibility_timeout_ms"
        )

    def publish(self, messages: Sequence[Message]) -> Settlement:
        """Sends messages, and counts what became of them. Whatever goes wrong is in the settlement."""
        started = time.monotonic()
        settled = settlement(messages, self.send(self._sink.publish, messages), self.offset_id)
        self.progressed |= bool(settled.delivered or settled.dead)
        self.count(messages[0].created_at, settled, time.monotonic() - started)
        return settled

    def send(
        self,
        take: Take,
        messages: Sequence[Message],
        wire: Wire | None = None,
    ) -> list[Failure]:
        """Hands messages to a method of the sink as records. Whatever goes wrong is in the failures."""
        self.isolated = False
        encoded = encode(wire or self._wire, messages, in_order=self._sink.keeps_offset)
        if messages and not encoded.records:
            return encoded.failures
        failures = self._take(take, encoded.records)
        return encoded.with_failures(failures) if encoded.failures else failures

    def _take(self, take: Take, records: Sequence[Record]) -> list[Failure]:
        try:
            return take(records)
        except NotConnected as error:
            self.sink_works = False
            return [Failure(0, False, error.code, str(error))]
        except Exception as error:  # noqa: BLE001  a sink's bug must not cost the drain its end
            log_bug("bug in a sink", error, sink_type=self._labels.sink_type)
            self.sink_works = False
            if not records or isinstance(error, RelayError):
                return [Failure(0, False, INTERNAL, described(error))]
            return self._isolate(take, records, error)

    def _isolate(self, take: Take, records: Sequence[Record], error: Exception) -> list[Failure]:
        session, self.isolated = self._session, True
        search = Isolation(
            records,
            take,
            self.reopen,
            lambda: session.lease.covers(self._publish_limit_seconds),
            in_order=self._sink.keeps_offset,
        )
        failures = search.run(error, session.start.failures)
        self.sink_works = search.sink_works
        return failures

    def reopen(self) -> None:
        """A sink that raised what it must not works again. Raises NotConnected, ConfigError."""
        sink = self._sink
        sink.close()
        sink.open()
        if isinstance(sink, TransactionalSink) and sink.transactional:
            sink.use_transaction(self._session.connection)
        sink.begin(self._session.lease.drain, self.offset_id)

    def is_over(self) -> bool:
        """Whether the slice has ended, the pipeline was changed, or the process stops."""
        return time.monotonic() >= self._slice_ends or self._session.config_changed or self.stop.is_set()

    def failed(self, failure: Failure) -> DrainResult:
        """The result of a drain that this failure has stopped."""
        log.warning("publish failed", code=failure.code, reason=failure.reason, after_message=self.offset_id)
        return failed(
            self._session.start.failures,
            failure.code,
            failure.reason,
            progressed=self.progressed,
            asked_seconds=failure.retry_after_seconds,
            needs_operator=failure.code in self._sink.needs_operator,
        )

    @cached_property
    def _series(self) -> tuple[Histogram, Counter, Histogram]:
        """Those of each batch: found by their labels once."""
        metrics, labels = worker_metrics(), self._labels
        return (
            metrics.publish_seconds.labels(*labels),
            metrics.messages_published.labels(*labels),
            metrics.delivery_seconds.labels(*labels),
        )

    def count(self, oldest: str, settled: Settlement, seconds: float) -> None:
        """Counts a batch that took so long, and whose first message was published then."""
        publish_seconds, published, delivery_seconds = self._series
        publish_seconds.observe(seconds)
        published.inc(settled.delivered)
        if settled.delivered:
            age = datetime.now(UTC) - datetime.fromisoformat(oldest)
            delivery_seconds.observe(max(0.0, age.total_seconds()))
        for message_id, dead in settled.dead:
            metrics = worker_metrics()
            metrics.dead_letters.labels(*self._labels).inc()
            metrics.failures.labels(*self._labels, dead.code).inc()
            log.error("dead letter", message=message_id, code=dead.code, reason=dead.reason)
