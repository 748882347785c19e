"""The reverse drain: source -> rows -> inbox (commit) -> acknowledge, batch after batch.

While PostgreSQL writes one batch the next is received and decoded, but only what is there already: nothing waits for
its commit or its acknowledgement because the source is idle. With nothing on the way the drain waits on the source
inside its slice, so that an idle source costs no polling.
"""

import time
from collections.abc import Sequence

import structlog

from relay.backends.source import Lane, Source
from relay.drains.fence import FencedSession
from relay.drains.inbox import InboundBatch, Stopped, Writer, WriteResult
from relay.drains.lease import DrainResult, failed
from relay.errors import NotConnected
from relay.models import Failure, InboxRow, Received
from relay.pipelines.config import ReverseConfig, parse_reverse
from relay.process.metrics import PipelineLabels
from relay.process.metrics.workers import worker_metrics
from relay.process.stop import Stop
from relay.process.unforeseen import INTERNAL, described, log_bug
from workers.redelivery import retry_received
from workers.resources import Resources
from workers.wait_slots import WaitSlots

log = structlog.get_logger(__name__)

# With others waiting for a thread: how long one waits on an idle source, and how long a busy one keeps its thread.
CONTENDED_WAIT_SECONDS = 0.1
CONTENDED_SLICE_SECONDS = 2.0

# How often a drain that waits asks whether its pipeline was changed. What comes is written with the answer to that.
CHECK_SECONDS = 1.0


def drain(resources: Resources, session: FencedSession) -> DrainResult:
    """Receives until the slice is over, the configuration changes, or the process stops.

    Raises Fenced, NotConnected (PostgreSQL), ConfigError. A source's failure is in the value returned.
    """
    start, drain = session.start, session.lease.drain
    config = parse_reverse(start.config, resolved=True)
    session.lease.seconds = config.pipeline.visibility_timeout_ms / 1000
    before = (start.revision, drain.epoch, drain.number - 1)
    place = f"{drain.pipeline}/{start.lane}"
    try:
        source = resources.sources.take(
            place,
            before,
            lambda: config.make_source(drain.pipeline, Lane(start.lane, start.lanes)),
            lambda made: made.open(start.positions),
        )
    except NotConnected as error:
        log.warning("source cannot be opened", reason=str(error))
        return failed(
            start.failures, error.code, str(error), needs_operator=error.code in config.source_class.needs_operator
        )
    writer = Writer(session, config.pipeline.on_invalid)
    work = ReverseDrain(resources.stop, resources.wait_slots, session, config, source, writer)
    keep = False
    try:
        writer.store_positions(source.begun)
        source.begun = {}
        if start.redeliver:
            work.retry_dead_letters()
        result = work.run()
        keep = work.source_works and _release(source)
    finally:
        if keep:
            resources.sources.give_back(place, (start.revision, drain.epoch, drain.number), source)
        else:
            source.close()
    return result


def _release(source: Source) -> bool:
    try:
        source.release()
    except NotConnected as error:
        log.warning("source lost between drains", reason=str(error))
        return False
    except Exception as error:  # noqa: BLE001  the drain has ended well: only this source is of no use any more
        log_bug("bug in a source", error)
        return False
    return True


class ReverseDrain:
    """One reverse drain in progress."""

    def __init__(
        self,
        stop: Stop,
        wait_slots: WaitSlots,
        session: FencedSession,
        config: ReverseConfig,
        source: Source,
        writer: Writer,
    ) -> None:
        self._stop = stop
        self._wait_slots = wait_slots
        self._session = session
        self._config = config
        self._source = source
        self._writer = writer
        self._decode = config.make_decoder(session.lease.drain.pipeline).decode
        self._began = self._checked_at = time.monotonic()
        self._labels = PipelineLabels(session.lease.drain.pipeline, "reverse", config.pipeline.source_type)
        self._sent = False
        """Whether a batch is on its way to PostgreSQL."""
        self._progressed = False
        self._failure: Failure | None = None
        self._stopped_at_message = False
        """Whether that is a message that cannot be stored: it comes again, and stops the pipeline again."""
        self.source_works = True

    def run(self) -> DrainResult:
        while not self._is_over():
            received = self._receive(0.0)
            decoded = self._decoded(received)
            self._confirm()
            if received and self._failure is None:
                self._send(*decoded)
            elif self._failure is None and not self._wait():
                self._pass()
                return DrainResult("later", self._progressed)
        self._confirm()
        self._pass()
        if self._failure is None:
            return DrainResult("more", self._progressed)
        failure = self._failure
        log.warning("receiving failed", code=failure.code, reason=failure.reason)
        return failed(
            self._session.start.failures,
            failure.code,
            failure.reason,
            progressed=self._progressed,
            needs_operator=self._stopped_at_message or failure.code in self._source.needs_operator,
        )

    def retry_dead_letters(self) -> None:
        """Retries the dead letters for which that was requested, for at most half a slice. It needs no source."""
        more = True
        ends_at = time.monotonic() + self._slice_seconds() / 2
        while more and time.monotonic() < ends_at and not self._stop.is_set():
            more = retry_received(self._session, self._decode, self._config.pipeline.batch_size)

    # Receiving --------------------------------------------------------------------------------------------------

    def _wait(self) -> bool:
        """Waits on the idle source until something came or the slice is over. False: others need the thread more."""
        with self._wait_slots.slot(self._session.lease.drain.pipeline) as given:
            while given and not self._is_over():
                contended = self._wait_slots.is_contended()
                received = self._receive(self._longest_wait(contended))
                if received:
                    self._send(*self._decoded(received))
                    return True
                if contended and self._failure is None:
                    return False
                self._check_pipeline()
            return given

    def _pass(self) -> None:
        """Stores how far the source is where no message says it."""
        if self._failure is None and not self._sent:
            try:
                passed = self._source.passed()
            except NotConnected as error:
                self._lost(error.code, str(error))
            except Exception as error:  # noqa: BLE001  as in `_receive`
                self._bug(error)
            else:
                self._writer.store_positions(passed)

    def _check_pipeline(self) -> None:
        """A wait was in vain. No wait is cut short for this: a source that is paid for each request sets its own."""
        now = time.monotonic()
        if self._failure is None and now - self._checked_at >= CHECK_SECONDS:
            self._checked_at = now
            self._pass()
            self._writer.check_pipeline()
            if self._writer.redeliver and self._session.start.lane == 0 and not self._is_over():
                self.retry_dead_letters()

    def _longest_wait(self, contended: bool) -> float:
        """No wait outlives the slice or the lease."""
        limit = self._source.features.longest_wait_seconds
        wait_seconds = min(limit, self._slice_seconds() - (time.monotonic() - self._began))
        if contended:
            wait_seconds = min(wait_seconds, CONTENDED_WAIT_SECONDS)
        wait_seconds = max(0.0, wait_seconds)
        if not self._session.lease.covers(wait_seconds + self._config.source.timeout_ms / 1000):
            self._writer.renew()
        return wait_seconds

    def _receive(self, wait_seconds: float) -> list[Received]:
        try:
            return self._source.receive(self._config.pipeline.batch_size, wait_seconds)
        except NotConnected as error:
            self._lost(error.code, str(error))
        except Exception as error:  # noqa: BLE001  a source's bug must not cost the drain its end
            self._bug(error)
        return []

    def _bug(self, error: Exception) -> None:
        """What no one foresaw, and no single message is known to have caused."""
        log_bug("bug in a source", error, source_type=self._labels.sink_type)
        self._lost(INTERNAL, described(error))

    def _lost(self, code: str, reason: str) -> None:
        self.source_works = False
        self._failure = self._failure or Failure(0, False, code, reason)

    # Writing ----------------------------------------------------------------------------------------------------

    def _decoded(self, received: Sequence[Received]) -> tuple[InboundBatch, Stopped | None]:
        """What can be written of it, and the message at which the pipeline must stop then."""
        rows: list[tuple[Received, InboxRow]] = []
        dead: list[tuple[Received, Failure]] = []
        for index, message in enumerate(received):
            decoded = self._decode(message)
            if isinstance(decoded, InboxRow):
                rows.append((message, decoded))
            elif self._config.pipeline.on_invalid == "dead_letter":
                dead.append((message, decoded))
            else:
                return InboundBatch(received[:index], rows, dead), Stopped(message, decoded)
        return InboundBatch(received, rows, dead), None

    def _send(self, batch: InboundBatch, stopped: Stopped | None) -> None:
        if stopped is not None:
            self._stopped(stopped)
        self._sent = bool(batch.received)
        if self._sent:
            self._writer.send(batch)

    def _confirm(self) -> None:
        """Waits until the batch on its way is committed, and only then acknowledges it."""
        if not self._sent:
            return
        self._sent = False
        started = time.monotonic()
        result = self._writer.confirm()
        self._progressed |= bool(result.received)
        self._count(result, time.monotonic() - started)
        if result.stopped:
            self._stopped(result.stopped)
        if not self.source_works or not result.received:
            return  # what is written and not acknowledged comes again, and the inbox knows it
        try:
            self._source.ack(result.received)
        except NotConnected as error:
            self._lost(error.code, str(error))
        except Exception as error:  # noqa: BLE001  as in `_receive`: what is not acknowledged comes again
            self._bug(error)

    def _stopped(self, stopped: Stopped) -> None:
        hint = "; fix it at its source, or let it become a dead letter: on_invalid"
        self._failure = Failure(0, False, stopped.failure.code, f"{stopped}{hint}")
        self._stopped_at_message = True

    def _is_over(self) -> bool:
        return (
            self._failure is not None
            or time.monotonic() - self._began >= self._slice_seconds()
            or self._session.config_changed
            or self._stop.is_set()
        )

    def _slice_seconds(self) -> float:
        whole = self._config.pipeline.slice_ms / 1000
        return min(whole, CONTENDED_SLICE_SECONDS) if self._wait_slots.is_contended() else whole

    def _count(self, result: WriteResult, seconds: float) -> None:
        metrics = worker_metrics()
        metrics.write_seconds.labels(*self._labels).observe(seconds)
        metrics.messages_received.labels(*self._labels).inc(result.new)
        metrics.duplicates.labels(*self._labels).inc(result.stored - result.new)
        for message, failure in result.dead:
            metrics.dead_letters.labels(*self._labels).inc()
            metrics.failures.labels(*self._labels, failure.code).inc()
            log.error("dead letter", message=message.id, code=failure.code, reason=failure.reason)
