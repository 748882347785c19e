"""The NATS source: a durable pull consumer of a JetStream stream, acknowledged explicitly after the commit.

Once: JetStream sends again what was not acknowledged, and the unique event id keeps it from being stored twice.
Skipping by the highest sequence seen would lose messages that come again, so nothing is ever skipped.

The position is a floor: every message of the stream at or below it that this consumer selects was handed out before,
and so is committed when this message is. It serves for one thing: a consumer that was lost with its server is created
again there. It reads `<sequence>@<when the stream was made>`, because a recreated stream counts from 1 again.

Order: one request for messages is on its way at a time, and none while no one receives. What was handed out and not
acknowledged is given back when the drain rests, and by the next worker when this one was killed (`receiver.py`),
before anything new is asked for; so it comes first.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from relay.backends.common.opening import opened
from relay.backends.nats.arrived import Arrived
from relay.backends.nats.config import NatsSourceConfig, consumer_name
from relay.backends.nats.errors import ERRORS
from relay.backends.source import Source, SourceFeatures
from relay.errors import MissingExtra, NotConnected
from relay.models import Received

if TYPE_CHECKING:
    from relay.backends.nats.receiver import NatsReceiver


class NatsSource(Source[NatsSourceConfig, Arrived]):
    features: ClassVar[SourceFeatures] = SourceFeatures(
        keeps_headers=True, needs_source=True, needs_credentials=True, one_lane="its consumer has one reader"
    )
    config_model = NatsSourceConfig
    needs_operator = ERRORS.needs_operator

    def __init__(self, config: NatsSourceConfig, pipeline: str) -> None:
        self._config = config
        self._pipeline = pipeline
        self._consumer = consumer_name(self._config, pipeline)
        self._where = f"pipeline {pipeline!r}: NATS stream {self._config.stream!r}, consumer {self._consumer!r}"
        self._receiver: NatsReceiver | None = None

    def open(self, positions: Mapping[str, str]) -> None:
        try:
            from relay.backends.nats.receiver import NatsReceiver
        except ImportError as error:
            raise MissingExtra("nats", "nats") from error
        self.close()
        position = positions.get(f"{self._config.stream}/{self._consumer}")
        self._receiver = opened(NatsReceiver(self._config, self._consumer, self._pipeline, self._where, position))
        self.begun = self._receiver.begun

    def fetch(self, max_messages: int, wait_seconds: float) -> list[Arrived]:
        return self._opened().fetch(max_messages, wait_seconds)

    def convert(self, message: Arrived) -> Received:
        return message.converted()

    def bare(self, message: Arrived) -> Received:
        return message.bare()

    def ack(self, received: Sequence[Received]) -> None:
        self._opened().ack([message.token for message in received])

    def release(self) -> None:
        if self._receiver is not None:
            self._receiver.release()

    def close(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.close()

    def _opened(self) -> "NatsReceiver":
        receiver = self._receiver
        if receiver is None:
            raise NotConnected(f"{self._where}: not open", code="closed")
        return receiver
