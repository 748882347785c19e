"""Publishes tasks to the RabbitMQ of an application: to the default exchange, whose routing key is the name of a queue.

Nothing is declared: the arguments of a queue (`x-max-priority`, `x-dead-letter-routing-key`, its type) are the
application's, and a declaration with others would fail. A queue that does not exist returns the message.
"""

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from relay.backends.common.opening import opened
from relay.backends.rabbitmq.config import RabbitmqSinkConfig
from relay.errors import MissingExtra
from relay.models import Failure
from workers.jobs.hand_off.task import Content, System, Task

if TYPE_CHECKING:
    from relay.backends.rabbitmq.frames import Encoder
    from relay.backends.rabbitmq.publisher import PublishingChannel

_CONTENT = struct.Struct(">HHQ")  # class, weight, size of the body; the properties follow
_PERSISTENT = 2


class Outgoing(NamedTuple):
    dedup_id: str
    queue: str
    content: Content


class RabbitmqSender:
    def __init__(self, config: RabbitmqSinkConfig, system: System, where: str, pipeline: str) -> None:
        self._config = config
        self._system = system
        self._where = where
        self._pipeline = pipeline
        self._channel: PublishingChannel[Outgoing] | None = None
        self._limit_bytes = config.max_message_bytes

    @property
    def is_open(self) -> bool:
        return self._channel is not None

    def open(self, deadline: float) -> None:  # noqa: ARG002  it has the time limit of its configuration
        try:
            from relay.backends.rabbitmq.publisher import PublishingChannel
        except ImportError as error:
            raise MissingExtra("rabbitmq", "rabbitmq") from error
        self._channel = opened(PublishingChannel(self._config, self._pipeline, self._where, _to_frames))

    def send(self, tasks: Sequence[Task], deadline: float) -> list[Failure]:
        channel = self._channel
        assert channel is not None
        batch = [Outgoing(task.dedup_id, task.queue, self._system.content(task)) for task in tasks]
        outcomes = channel.publish([one for one in batch if len(one.content.body) <= self._limit_bytes], deadline)
        # Each outcome was taken: a job that comes again is meant to be sent again.
        channel.forget()
        if channel.limit_bytes is not None:
            # The server closed the channel for one of these: known from now on.
            self._limit_bytes = min(self._limit_bytes, channel.limit_bytes)
        if channel.lost is not None:
            self.close()
        failures = []
        for index, one in enumerate(batch):
            if (size := len(one.content.body)) > self._limit_bytes:
                reason = f"{size} bytes; the server takes {self._limit_bytes} at most (max_message_size)"
                failures.append(Failure(index, True, "too_large", reason))
            elif (outcome := outcomes[one.dedup_id]).code:
                failures.append(Failure(index, outcome.permanent, outcome.code, outcome.reason))
        return failures

    def abort(self) -> None:
        if (channel := self._channel) is not None:
            channel.abort()

    def close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()


def _to_frames(encoder: "Encoder") -> Callable[[Outgoing, int], bytes]:
    from amqp.basic_message import Message  # type: ignore[import-untyped]

    from relay.backends.rabbitmq.frames import COMMANDS, Unsendable

    def frames(one: Outgoing, seconds: int) -> bytes:
        body, properties = one.content
        fixed: dict[str, Any] = {"delivery_mode": _PERSISTENT, "message_id": one.dedup_id, "timestamp": seconds}
        if headers := properties.get("application_headers"):
            fixed["application_headers"] = {name: value for name, value in headers.items() if name not in COMMANDS}
        try:
            packed = Message(**(properties | fixed))._serialize_properties()
        except struct.error as error:
            raise Unsendable("bad_header", f"its headers: {error}") from None
        return encoder.framed(one.queue, _CONTENT.pack(60, 0, len(body)) + packed, body)

    return frames
