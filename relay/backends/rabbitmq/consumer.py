"""One connection to RabbitMQ that consumes a queue: receives, acknowledges, gives back."""

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from amqp import spec  # type: ignore[import-untyped]

from relay.backends.rabbitmq.config import RabbitmqSourceConfig
from relay.backends.rabbitmq.connection import LOST, RabbitmqLink
from relay.backends.rabbitmq.deliveries import Deliveries, Delivery
from relay.backends.rabbitmq.errors import ERRORS
from relay.backends.source import MAX_HELD_BYTES
from relay.errors import ConfigError, NotConnected
from relay.models import Received

HEARTBEAT_SECONDS = 60
# The caller may hold two batches.
_BATCH_BYTES = MAX_HELD_BYTES // 2


class RabbitmqConsumer:
    """Once `lost` is set, make a new one."""

    def __init__(self, config: RabbitmqSourceConfig, pipeline: str, where: str) -> None:
        self.lost: NotConnected | None = None
        self._config = config
        self._pipeline = pipeline
        self._where = where
        self._timeout_seconds = config.timeout_ms / 1000
        self._consuming = False
        self._era = object()
        self._outstanding: dict[int, None] = {}
        """Delivery tags handed out and not acknowledged, in order."""
        self._fresh: deque[Delivery] = deque()
        self._fresh_bytes = 0
        deliveries = Deliveries(config.queue, self._on_message)
        self._link = RabbitmqLink(
            config,
            pipeline,
            where,
            timeout_seconds=self._timeout_seconds,
            heartbeat_seconds=HEARTBEAT_SECONDS,
            frame_handler=deliveries.handler,
        )

    def open(self) -> None:
        """Raises NotConnected, or ConfigError when someone must change something."""
        wanted, link = self._config, self._link
        link.open()
        with link.errors(opening=True):
            if not link.exists(lambda channel: channel.queue_declare(wanted.queue, passive=True)):
                if not wanted.declare:
                    raise ConfigError(
                        f"{self._where}: there is no such queue; create it "
                        f"(rabbitmqadmin declare queue name={wanted.queue} durable=true), or set declare to true"
                    )
                arguments = {"x-queue-type": wanted.queue_type}
                link.channel.queue_declare(wanted.queue, durable=True, auto_delete=False, arguments=arguments)
            link.channel.basic_qos(0, wanted.prefetch, False)
            # Here, because this is where a missing permission shows.
            self._consume()

    def fetch(self, max_messages: int, wait_seconds: float) -> list[Delivery]:
        deadline = time.monotonic() + wait_seconds
        with self._working(wait_seconds):
            if not self._consuming:
                self._consume()
            while len(self._fresh) < max_messages and self._fresh_bytes < _BATCH_BYTES:
                seconds = 0.0 if self._fresh else min(HEARTBEAT_SECONDS / 4, deadline - time.monotonic())
                if not self._link.connection.step(max(0.0, seconds)):
                    self._link.connection.heartbeat_tick()
                    if self._fresh or time.monotonic() >= deadline:
                        break
            self._link.connection.heartbeat_tick()
        return self._hand_out(max_messages)

    def ack(self, received: Sequence[Received]) -> None:
        tags = [tag for era, tag in (message.token for message in received) if era is self._era]
        tags = [tag for tag in tags if tag in self._outstanding]
        if not tags:
            return
        with self._working(0):
            if list(islice(self._outstanding, len(tags))) == tags:
                self._link.channel.basic_ack(tags[-1], multiple=True)
            else:
                for tag in tags:
                    self._link.channel.basic_ack(tag)
        for tag in tags:
            del self._outstanding[tag]

    def release(self) -> None:
        """Raises NotConnected; everything is given back then, too."""
        if not self._consuming:
            return
        self._consuming = False
        with self._working(0):
            channel = self._link.channel
            channel.basic_cancel(self._tag)
            channel.send_method(spec.Basic.Nack, "Lbb", (0, True, True))  # all there are, back into the queue
            # An answer to anything means that all of this is done.
            channel.basic_qos(0, self._config.prefetch, False)
        self._forget()

    def abort(self) -> None:
        self._link.abort()

    def close(self) -> None:
        if self.lost is None:
            with contextlib.suppress(NotConnected):
                self.release()
        self._link.close(in_good_order=self.lost is None)

    @property
    def _tag(self) -> str:
        return f"tide-relay {self._pipeline}"[:200]

    @contextlib.contextmanager
    def _working(self, wait_seconds: float) -> Iterator[None]:
        """The time limit; and an error of the client, which ends this connection, as ours."""
        if self.lost is not None:
            raise self.lost
        self._link.limit.begin(self._timeout_seconds + wait_seconds)
        try:
            yield
        except LOST as error:
            self.lost = ERRORS.lost(error, self._where)
            # Nothing is read from it any more: let the server give everything to others at once.
            self._link.close(in_good_order=False)
            raise self.lost from error

    def _consume(self) -> None:
        self._forget()
        # Before anything is sent: the first deliveries may come along with the answer.
        self._consuming = True
        self._link.channel.basic_consume(self._config.queue, consumer_tag=self._tag)

    def _forget(self) -> None:
        self._era = object()
        self._outstanding.clear()
        self._fresh.clear()
        self._fresh_bytes = 0

    def _on_message(self, delivery: Delivery) -> None:
        # While it rests, what is still on its way goes back with all the rest.
        if self._consuming:
            self._fresh.append(delivery)
            self._fresh_bytes += len(delivery.body)

    def _hand_out(self, max_messages: int) -> list[Delivery]:
        handed_out: list[Delivery] = []
        while self._fresh and len(handed_out) < max_messages:
            message = self._fresh.popleft()
            self._fresh_bytes -= len(message.body)
            self._outstanding[message.tag] = None
            handed_out.append(message._replace(era=self._era))
        return handed_out
