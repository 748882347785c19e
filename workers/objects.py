"""The object loop: many batches become one object, which is settled as a whole.

The outbox itself is the buffer: until enough waits, or the oldest is old enough, nothing is read but numbers. Where
the object will end is committed before it is started, so that after a crash the same messages are written under the
same name.
"""

import time
from collections.abc import Sequence

import structlog

from relay.backends.sink import ObjectSink
from relay.drains.lease import DrainResult, DrainStart
from relay.drains.outbox import Reader, Settlement, planned_end
from relay.errors import NotConnected
from relay.models import Failure, Message, Record
from relay.pipelines.config import ForwardConfig
from workers.publisher import Publisher

log = structlog.get_logger(__name__)


class ObjectDrain:
    """Writes object after object, as long as one is due."""

    def __init__(
        self, start: DrainStart, config: ForwardConfig, sink: ObjectSink, reader: Reader, publisher: Publisher
    ) -> None:
        self._start = start
        self._poll_seconds = config.pipeline.poll_interval_ms / 1000
        self._sink = sink
        self._reader = reader
        self._publisher = publisher
        self._blamed: dict[int, Failure] = {}
        """Messages that make the sink raise what it must not, by id."""

    def run(self) -> DrainResult:
        """Writes objects until none is due or the slice is over. Raises Fenced, NotConnected, ConfigError."""
        planned = planned_end(self._start)
        if planned > self._publisher.offset_id:
            log.info("object is written again", after_message=self._publisher.offset_id, until_message=planned)
            if result := self._write_object(planned):
                return result
        while not self._publisher.is_over():
            due = self._due()
            if isinstance(due, DrainResult):
                return due
            self._reader.plan(self._publisher.offset_id, due)
            if result := self._write_object(due):
                return result
        return DrainResult("more", self._publisher.progressed)

    def _due(self) -> int | DrainResult:
        """The last message of the next object, or how the drain ends because none is due."""
        limits = self._sink.limits
        backlog = self._reader.peek(self._publisher.offset_id, limits.max_rows, limits.max_bytes)
        if backlog.end_id is None or backlog.seconds is None:
            return self._sleep(backlog.horizon)
        wait_seconds = limits.max_age_ms / 1000 - backlog.seconds
        if backlog.messages >= limits.max_rows or backlog.bytes >= limits.max_bytes or wait_seconds <= 0:
            return backlog.end_id
        # Until then publishers do not need to ring for each message.
        self._reader.set_bell("disarm")
        return DrainResult("later", self._publisher.progressed, min(wait_seconds, self._poll_seconds))

    def _sleep(self, horizon: int) -> DrainResult:
        """Nothing waits: arms the bell and looks once more."""
        settled = Settlement(horizon) if horizon > self._publisher.offset_id else None
        self._publisher.offset_id = max(self._publisher.offset_id, horizon)
        batch = self._reader.read(self._publisher.offset_id, settled, "arm")
        if batch.messages:
            return DrainResult("more", self._publisher.progressed)
        return DrainResult("again" if batch.open_publishers else "idle", self._publisher.progressed)

    def _write_object(self, end_id: int) -> DrainResult | None:
        """Makes one object of all messages up to `end_id`, and settles them. A result ends the drain."""
        started = time.monotonic()
        dead: list[tuple[int, Failure]] = []
        messages, oldest = 0, None
        # Whatever ends the drain before the object is written (PostgreSQL is lost, say), the sink is closed with what
        # it holds of it: the next drain starts the object again.
        self._publisher.sink_works = False
        self._ask(self._publisher.offset_id)
        batch = self._receive(end_id)
        while batch:
            after = batch[-1].id
            if after < end_id:
                self._ask(after)  # read while the sink encodes
            sound = [message for message in batch if message.id not in self._blamed]
            failures = self._publisher.send(self._sink.append, sound) if sound else []
            following = self._receive(end_id) if after < end_id else []
            temporary = next((failure for failure in failures if not failure.permanent), None)
            if temporary:
                return self._publisher.failed(temporary)
            if self._publisher.stop.is_set():
                return DrainResult("more", self._publisher.progressed)
            if self._publisher.isolated:
                self._blamed |= {sound[failure.index].id: failure for failure in failures}
                return self._begin_again(end_id)
            dead += [(sound[failure.index].id, failure) for failure in failures]
            dead += [(message.id, self._blamed[message.id]) for message in batch if message.id in self._blamed]
            messages += len(batch)
            oldest = oldest or batch[0].created_at
            batch = following
        self._publisher.hold_lease()
        failures = self._publisher.send(self._seal, [])
        if failures:
            return self._publisher.failed(failures[0])
        self._publisher.sink_works = True
        self._settle(Settlement(end_id, messages - len(dead), tuple(dead)), oldest, started)
        return None

    def _begin_again(self, end_id: int) -> DrainResult | None:
        """The object in hand is gone with what a message did to the sink; that message is known now."""
        try:
            self._publisher.reopen()
        except NotConnected as error:
            return self._publisher.failed(Failure(0, False, error.code, str(error)))
        return self._write_object(end_id)

    def _ask(self, after: int) -> None:
        self._publisher.hold_lease()
        self._reader.ask(after)

    def _receive(self, end_id: int) -> list[Message]:
        return [message for message in self._reader.receive().messages if message.id <= end_id]

    def _seal(self, _records: Sequence[Record]) -> list[Failure]:
        self._sink.seal()
        return []

    def _settle(self, settled: Settlement, oldest: str | None, started: float) -> None:
        self._reader.settle(settled)
        self._publisher.offset_id = settled.offset_id
        self._publisher.progressed = True
        if oldest:
            self._publisher.count(oldest, settled, time.monotonic() - started)
