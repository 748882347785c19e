"""The RabbitMQ sink: an exchange, to which a batch is published at once and every publisher confirm awaited.

py-amqp is a synchronous client, so everything happens in the caller's thread; `publisher.py` holds the
connection, `frames.py` the bytes, `confirms.py` what became of them.

Order: records leave in order over one channel, in chunks of `max_in_flight`, and nothing is sent after a chunk in which
something failed for now. Inside a chunk the server may refuse one record (a full queue) and take the next, and the
refused one then follows it. `max_in_flight` 1 closes that gap. docs/backends/rabbitmq.md says more.
"""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from relay.backends.common.batch import Batch
from relay.backends.common.deadline import in_ms
from relay.backends.common.opening import opened
from relay.backends.rabbitmq.config import RabbitmqSinkConfig
from relay.backends.rabbitmq.errors import ERRORS
from relay.backends.sink import Features, Sink
from relay.errors import MissingExtra, NotConnected
from relay.models import Failure, Record

if TYPE_CHECKING:
    from relay.backends.rabbitmq.publisher import PublishingChannel


class RabbitmqSink(Sink[RabbitmqSinkConfig]):
    features: ClassVar[Features] = Features(
        keeps_headers=True,
        keeps_key=True,
        # A server's default `max_message_size` up to RabbitMQ 3; the server's own limit holds.
        largest_record_bytes=128 * 1024 * 1024,
        needs_destination=True,
        needs_credentials=True,
        cloudevents_binding="amqp",
        subject_key="routing_key",
        subject_aliases=("rabbitmq_routing_key",),
    )
    config_model = RabbitmqSinkConfig
    needs_operator = ERRORS.needs_operator

    def __init__(self, config: RabbitmqSinkConfig, pipeline: str) -> None:
        self._config = config
        self._pipeline = pipeline
        name = self._config.exchange
        self._where = f"pipeline {pipeline!r}: RabbitMQ " + (f"exchange {name!r}" if name else "default exchange")
        self._limit_bytes = self._config.max_message_bytes
        self._channel: PublishingChannel[Record] | None = None
        # Held by the thread that uses the channel.
        self._in_use = threading.Lock()

    def open(self) -> None:
        try:
            from relay.backends.rabbitmq.publisher import PublishingChannel
        except ImportError as error:
            raise MissingExtra("rabbitmq", "rabbitmq") from error
        self.close()
        self._channel = opened(
            PublishingChannel(self._config, self._pipeline, self._where, lambda encoder: encoder.frames)
        )

    def publish(self, records: Sequence[Record]) -> list[Failure]:
        deadline = in_ms(self._config.timeout_ms)
        with self._in_use:
            channel = self._channel
            if channel is None:
                raise NotConnected(f"{self._where}: not open", code="closed")
            if channel.lost is not None:
                raise channel.lost
            batch = Batch(len(records))
            for begin in range(0, len(records), self._config.max_in_flight):
                end = begin + self._config.max_in_flight
                batch.add(self._publish_chunk(channel, records[begin:end], begin, deadline))
                if batch.blocked_by is not None:
                    if batch.blocked_by == 0 and channel.lost is not None:
                        raise channel.lost
                    batch.hold_back_from(end)
                    return batch.result()
            channel.forget()
        return batch.result()

    def close(self) -> None:
        channel = self._channel
        if channel is None:
            return
        if not self._in_use.acquire(blocking=False):
            channel.abort()
            self._in_use.acquire()
        try:
            self._channel = None
            channel.close()
        finally:
            self._in_use.release()

    def _publish_chunk(
        self, channel: "PublishingChannel[Record]", chunk: Sequence[Record], begin: int, deadline: float
    ) -> list[Failure]:
        """Its failures; `begin` is its place in the batch."""
        outcomes = channel.publish([record for record in chunk if len(record.body) <= self._limit_bytes], deadline)
        if channel.limit_bytes is not None:
            # The server closed the channel for one of these: known from now on.
            self._limit_bytes = min(self._limit_bytes, channel.limit_bytes)
        failures = []
        for index, record in enumerate(chunk, begin):
            if len(record.body) > self._limit_bytes:
                reason = f"{len(record.body)} bytes; the server takes {self._limit_bytes} at most (max_message_size)"
                failures.append(Failure(index, True, "too_large", reason))
            elif (outcome := outcomes[record.dedup_id]).code:
                failures.append(Failure(index, outcome.permanent, outcome.code, outcome.reason))
        return failures
