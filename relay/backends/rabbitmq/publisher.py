"""One open connection to RabbitMQ in confirm mode: sends chunks of records, and waits for what becomes of them."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from relay.backends.rabbitmq.config import RabbitmqSinkConfig
from relay.backends.rabbitmq.confirms import Confirms, Outcome
from relay.backends.rabbitmq.connection import LOST, RabbitmqLink
from relay.backends.rabbitmq.errors import ERRORS, largest_message_bytes
from relay.backends.rabbitmq.frames import Encoder, Unsendable
from relay.errors import ConfigError, NotConnected

# How much goes out before the answers are read. More, and both sides could wait for each other with full buffers.
_WRITE_BYTES = 64 * 1024


class Identified(Protocol):
    """What can be published."""

    @property
    def dedup_id(self) -> str:
        """The `message_id` of its frames, by which a message that no queue takes is known again."""


R = TypeVar("R", bound=Identified)
ToFrames = Callable[[R, int], bytes]
"""The frames of one; the int is the time in seconds of the epoch. Raises Unsendable."""


class PublishingChannel(Generic[R]):
    """Bound to one exchange. When `lost` is set it stays lost: make a new one."""

    def __init__(
        self, config: RabbitmqSinkConfig, pipeline: str, where: str, to_frames: Callable[[Encoder], ToFrames[R]]
    ) -> None:
        """`to_frames` is asked once the channel is open."""
        self.lost: NotConnected | None = None
        self.limit_bytes: int | None = None
        """The server's largest message, once it has closed the channel for a larger one."""
        self._config = config
        self._where = where
        self._confirms = Confirms()
        # No heartbeats: nothing could send them between batches. Keepalive finds a dead server.
        self._link = RabbitmqLink(
            config, pipeline, where, timeout_seconds=config.timeout_ms / 1000, heartbeat_seconds=0
        )
        self._make_to_frames = to_frames
        self._to_frames: ToFrames[R]

    def open(self) -> None:
        """Raises NotConnected, or ConfigError when someone must change something."""
        self._link.open()
        with self._link.errors(opening=True):
            self._declare()
            channel = self._link.channel
            channel.confirm_select()
            channel.events["basic_ack"].add(self._confirms.on_ack)
            channel.events["basic_nack"].add(self._confirms.on_nack)
            channel.events["basic_return"].add(self._on_return)
        encoder = Encoder(
            self._config.exchange,
            channel=channel.channel_id,
            frame_max=self._link.connection.frame_max,
            mandatory=self._config.mandatory,
            persistent=self._config.persistent,
            headers=self._config.headers or {},
        )
        self._to_frames = self._make_to_frames(encoder)

    def publish(self, chunk: Sequence[R], deadline: float) -> dict[str, Outcome]:
        """What became of each, by dedup id. A connection that is lost meanwhile is in `lost`, not raised."""
        dedup_ids = {record.dedup_id for record in chunk}
        confirms = self._confirms
        confirms.keep_only(dedup_ids)
        self._link.limit.ends_at = deadline
        left_over = confirms.waits_for(dedup_ids)
        heard = 0
        try:
            heard += self._link.connection.pump(0)
            if time.monotonic() < deadline:
                heard += self._send([record for record in chunk if not confirms.knows(record.dedup_id)], deadline)
            while confirms.waits_for(dedup_ids) and (seconds := deadline - time.monotonic()) > 0:
                heard += self._link.connection.pump(seconds)
        except LOST as error:
            self.limit_bytes = largest_message_bytes(error)
            self.lost = ERRORS.lost(error, self._where)
        else:
            # Silent for two whole publishes: whatever is at the other end, it has forgotten us.
            if left_over and confirms.waits_for(dedup_ids) and not heard and not self._link.blocked:
                self.lost = NotConnected(f"{self._where}: {self._late().reason}", code="timeout")
        missing = self._missing()
        return {record.dedup_id: confirms.take(record.dedup_id) or missing for record in chunk}

    def forget(self) -> None:
        """Nothing of what was published will be retried: a record that comes again is meant to be sent again."""
        self._confirms.keep_only(())

    def abort(self) -> None:
        self._link.abort()

    def close(self) -> None:
        self._link.close(in_good_order=self.lost is None)

    def _send(self, records: Sequence[R], deadline: float) -> int:
        """Returns how many frames came meanwhile. Stops between two messages when the server blocks."""
        heard, size = 0, 0
        seconds = int(time.time())
        pieces: list[bytes] = []
        for record in records:
            if self._link.blocked:
                heard += self._wait_while_blocked(deadline)
                if self._link.blocked:
                    break
            try:
                frames = self._to_frames(record, seconds)
            except Unsendable as error:
                self._confirms.outcomes[record.dedup_id] = Outcome(error.code, str(error), permanent=True)
                continue
            self._confirms.sent(record.dedup_id)
            pieces.append(frames)
            size += len(frames)
            if size >= _WRITE_BYTES:
                heard += self._write(pieces)
                pieces, size = [], 0
        if pieces:
            heard += self._write(pieces)
        return heard

    def _write(self, pieces: list[bytes]) -> int:
        connection = self._link.connection
        connection.send(b"".join(pieces))
        return connection.pump(0)

    def _wait_while_blocked(self, deadline: float) -> int:
        heard = 0
        while self._link.blocked and (seconds := deadline - time.monotonic()) > 0:
            heard += self._link.connection.pump(seconds)
        return heard

    def _missing(self) -> Outcome:
        """What is said of a record that has no outcome."""
        if self.lost is not None:
            return Outcome(self.lost.code, str(self.lost))
        if self._link.blocked:
            return Outcome("blocked", "the server takes no messages for now: an alarm of its memory or disk")
        return self._late()

    def _late(self) -> Outcome:
        return Outcome("timeout", f"no confirmation within {self._config.timeout_ms} ms")

    def _on_return(self, error: Exception, _exchange: str, routing_key: str, message: Any) -> None:
        reason = f"no queue takes routing key {routing_key!r}: {getattr(error, 'reply_text', error)}"
        self._confirms.on_return(str(message.properties.get("message_id", "")), reason)

    def _declare(self) -> None:
        wanted, link = self._config, self._link
        if wanted.exchange and not link.exists(lambda c: c.exchange_declare(wanted.exchange, "", passive=True)):
            if not wanted.declare:
                raise ConfigError(
                    f"{self._where}: there is no such exchange; create it and bind a queue to it, or set declare to "
                    "true, and in queue what shall receive"
                )
            link.channel.exchange_declare(wanted.exchange, wanted.exchange_type, durable=True, auto_delete=False)
        if wanted.queue is not None:
            if not link.exists(lambda c: c.queue_declare(wanted.queue, passive=True)):
                link.channel.queue_declare(wanted.queue, durable=True, auto_delete=False)
            if wanted.exchange:
                link.channel.queue_bind(wanted.queue, wanted.exchange, wanted.binding_key)
