"""What every forward drain does with its sink, its lease and its numbers, however it goes from batch to batch."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import structlog

from relay.backends.sink import Sink
from relay.drains import lease as ownership
from relay.drains.lease import DrainResult, DrainStart, Lease
from relay.drains.outbox import Reader, Settlement
from relay.errors import ConfigError, NotConnected
from relay.masking import mask
from relay.models import Failure, Message, Record
from relay.pipelines.config import ForwardConfig
from relay.process.metrics import PipelineLabels, worker_metrics
from relay.wire.encode import Wire
from workers.resources import Resources

log = structlog.get_logger(__name__)

# More would change nothing: the first may have been slow, by chance.
RENEWALS = 5


class Delivery(ABC):
    """One forward drain in progress; see `forward.ForwardDrain` and `gather.GatherDrain`."""

    def __init__(
        self, resources: Resources, lease: Lease, begun: DrainStart, config: ForwardConfig, sink: Sink, reader: Reader
    ) -> None:
        self._tools = resources
        self._lease = lease
        self._begun = begun
        self._config = config
        self._sink = sink
        self._reader = reader
        self._wire = self._make_wire(begun.outbox)
        self._publish_limit_seconds = config.sink.timeout_ms / 1000
        self._slice_ends = time.monotonic() + config.pipeline.slice_ms / 1000
        self._labels = PipelineLabels(lease.drain.pipeline, "forward", config.pipeline.sink_type)
        self._offset_id = begun.offset_id
        self._progressed = False
        self.sink_works = True

    @abstractmethod
    def run(self) -> DrainResult:
        """Delivers as long as there is something to do and the slice lasts; says how it ended."""

    def _make_wire(self, outbox: str) -> Wire:
        pipeline, features = self._config.pipeline, self._sink.features
        return Wire(
            outbox=outbox,
            pipeline=self._lease.drain.pipeline,
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
            progress = self._sink.begin(self._lease.drain, self._offset_id)
        except NotConnected as error:
            self.sink_works = False
            return Failure(0, False, error.code, str(error))
        if progress.offset_id > self._offset_id:
            log.info("sink is ahead of the offset", offset=self._offset_id, sink=progress.offset_id)
            self._offset_id = progress.offset_id
            self._reader.settle(Settlement(progress.offset_id, dead=progress.dead))
        return None

    def _hold_lease(self, beside: Callable[[], object] = lambda: None) -> None:
        """No publish outlives its lease: where the rest of it is too short, it is renewed first."""
        renewals = 0
        while not self._lease.covers(self._publish_limit_seconds):
            if renewals == RENEWALS:
                raise self._lease_too_short()
            beside()
            self._reader.settle(Settlement(self._offset_id))
            renewals += 1

    def _lease_too_short(self) -> ConfigError:
        return ConfigError(
            f"pipeline {self._lease.drain.pipeline!r}: a lease of {self._lease.seconds:g} s was renewed {RENEWALS} "
            f"times, and each time too little was left of it for a publish of up to {self._publish_limit_seconds:g} s "
            "when PostgreSQL had answered: lower timeout_ms or raise visibility_timeout_ms"
        )

    def _send(self, publish: Callable[[Sequence[Record]], list[Failure]], messages: Sequence[Message]) -> list[Failure]:
        """Hands messages to the sink as records. Whatever goes wrong is in the failures."""
        try:
            return publish(self._wire.records(messages))
        except NotConnected as error:
            self.sink_works = False
            return [Failure(0, False, error.code, str(error))]
        except Exception as error:  # a sink's bug must not cost the drain its end
            self.sink_works = False
            log.exception("bug in a sink", sink_type=self._labels.sink_type)
            return [Failure(0, False, "internal", mask(f"{type(error).__name__}: {error}"))]

    def _is_over(self) -> bool:
        return time.monotonic() >= self._slice_ends or self._reader.config_changed or self._tools.stop.is_set()

    def failed(self, failure: Failure) -> DrainResult:
        log.warning("publish failed", code=failure.code, reason=failure.reason, after_message=self._offset_id)
        return ownership.failed(
            self._begun.failures,
            failure.code,
            failure.reason,
            progressed=self._progressed,
            asked_seconds=failure.retry_after_seconds,
        )

    def _count(self, oldest: datetime, settled: Settlement, seconds: float) -> None:
        metrics = worker_metrics()
        metrics.publish_seconds.labels(*self._labels).observe(seconds)
        metrics.messages_published.labels(*self._labels).inc(settled.delivered)
        if settled.delivered:
            age = datetime.now(UTC) - oldest
            metrics.delivery_seconds.labels(*self._labels).observe(max(0.0, age.total_seconds()))
        for message_id, dead in settled.dead:
            metrics.dead_letters.labels(*self._labels).inc()
            metrics.failures.labels(*self._labels, dead.code).inc()
            log.error("dead letter", message=message_id, code=dead.code, reason=dead.reason)
