"""The RabbitMQ source: a consumer of one queue, with manual acknowledgement after the commit.

The server sends up to `prefetch` messages ahead. They wait in the socket: what is not asked for is not read, and so
holds no memory here. Between drains there is no consumer, and nothing is held on the server either.

A heartbeat lets the server notice a worker that has crashed, and give its messages to the next one. It
is answered in `receive` and `ack`; a drain that is stuck for two minutes loses the connection, and its messages come
again.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from relay.backends.common.opening import opened
from relay.backends.rabbitmq.config import RabbitmqSourceConfig
from relay.backends.rabbitmq.errors import ERRORS
from relay.backends.source import Source, SourceFeatures
from relay.errors import MissingExtra, NotConnected
from relay.models import Received

if TYPE_CHECKING:
    from relay.backends.rabbitmq.consumer import RabbitmqConsumer
    from relay.backends.rabbitmq.deliveries import Delivery


class RabbitmqSource(Source[RabbitmqSourceConfig, "Delivery"]):
    features: ClassVar[SourceFeatures] = SourceFeatures(
        keeps_headers=True, keeps_key=True, needs_source=True, needs_credentials=True
    )
    config_model = RabbitmqSourceConfig
    needs_operator = ERRORS.needs_operator

    def __init__(self, config: RabbitmqSourceConfig, pipeline: str) -> None:
        self._config = config
        self._pipeline = pipeline
        self._where = f"pipeline {pipeline!r}: RabbitMQ queue {self._config.queue!r}"
        self._consumer: RabbitmqConsumer | None = None
        # Held by the thread that uses the consumer.
        self._in_use = threading.Lock()

    def open(self, positions: Mapping[str, str]) -> None:  # noqa: ARG002 (the server remembers)
        try:
            from relay.backends.rabbitmq.consumer import RabbitmqConsumer
        except ImportError as error:
            raise MissingExtra("rabbitmq", "rabbitmq") from error
        self.close()
        self._consumer = opened(RabbitmqConsumer(self._config, self._pipeline, self._where))

    def fetch(self, max_messages: int, wait_seconds: float) -> "list[Delivery]":
        with self._opened() as consumer:
            return consumer.fetch(max_messages, wait_seconds)

    def convert(self, message: "Delivery") -> Received:
        return message.converted()

    def bare(self, message: "Delivery") -> Received:
        return message.bare()

    def ack(self, received: Sequence[Received]) -> None:
        with self._opened() as consumer:
            consumer.ack(received)

    def release(self) -> None:
        # A connection that is lost has given everything back already.
        with contextlib.suppress(NotConnected), self._opened() as consumer:
            consumer.release()

    def close(self) -> None:
        consumer = self._consumer
        if consumer is None:
            return
        if not self._in_use.acquire(blocking=False):
            consumer.abort()
            self._in_use.acquire()
        try:
            self._consumer = None
            consumer.close()
        finally:
            self._in_use.release()

    @contextlib.contextmanager
    def _opened(self) -> "Iterator[RabbitmqConsumer]":
        with self._in_use:
            if self._consumer is None:
                raise NotConnected(f"{self._where}: not open", code="closed")
            yield self._consumer
