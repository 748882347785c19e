"""NATS for the source suite, and for what is true of the NATS source alone."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from nats.js import JetStreamContext

from relay.backends.nats.source import NatsSource
from relay.backends.source import Source
from tests.backends.nats.harness import NatsHarness
from tests.backends.source_harness import MissingSource, Sent, SourceHarness
from tests.backends.steps import Limits
from tests.services.nats import NatsServer


class NatsSourceHarness(SourceHarness):
    kind = NatsSource

    def __init__(self, server: NatsServer, name: str | None = None, **stream: Any) -> None:
        """`name`: of a stream that is there. Else one is made, as `stream` says."""
        self._server = server
        self.nats = NatsHarness(server)
        self.stream = self.nats.stream = name or self.nats.stream
        self.subject = self.nats.subject = f"{self.stream}.orders"
        self.consumer = "tide-contract"
        if name is None:
            self.nats.make_stream(subjects=[f"{self.stream}.>"], **stream)

    def config(self) -> dict[str, Any]:
        return {"url": self._server.url, "stream": self.stream, "ack_wait_ms": Limits.redelivery_seconds * 1000}

    def send(self, messages: Sequence[Sent]) -> None:
        async def publish(jetstream: JetStreamContext) -> None:
            for message in messages:
                await jetstream.publish(self.subject, message.body, headers=message.headers or None)

        self.nats._ask(publish)

    def stall(self) -> AbstractContextManager[object]:
        return self.nats.stall()

    def stop(self) -> None:
        self.nats.stop()

    def start(self) -> None:
        self.nats.start()

    def wrong_credentials(self) -> dict[str, Any]:
        return self.nats.wrong_credentials()

    def missing_source(self) -> MissingSource:
        name = f"missing-{self.stream}"
        return MissingSource(name, {"stream": name}, (f"nats stream add {name}",))

    def ask(self, subject: str, question: dict[str, Any] | None = None) -> dict[str, Any]:
        """What JetStream's API answers."""

        async def request(jetstream: JetStreamContext) -> dict[str, Any]:
            answer = await jetstream._nc.request(f"$JS.API.{subject}", json.dumps(question or {}).encode(), timeout=5)
            found: dict[str, Any] = json.loads(answer.data)
            return found

        found: dict[str, Any] = self.nats._ask(request)
        return found

    def consumer_info(self) -> dict[str, Any]:
        return self.ask(f"CONSUMER.INFO.{self.stream}.{self.consumer}")

    def make_consumer(self, **config: Any) -> None:
        wanted = {"durable_name": self.consumer, "ack_policy": "explicit", "deliver_policy": "all"} | config
        subject = f"CONSUMER.DURABLE.CREATE.{self.stream}.{self.consumer}"
        answer = self.ask(subject, {"stream_name": self.stream, "config": wanted})
        assert "error" not in answer, answer

    def recreate_stream(self) -> None:
        config = self.ask(f"STREAM.INFO.{self.stream}")["config"]
        self.ask(f"STREAM.DELETE.{self.stream}")
        self.ask(f"STREAM.CREATE.{self.stream}", config)

    def lose_consumer(self) -> None:
        self.ask(f"CONSUMER.DELETE.{self.stream}.{self.consumer}")


def killed(source: Source) -> None:
    """The connection ends as that of a killed worker does: without a word."""
    assert isinstance(source, NatsSource)
    receiver, source._receiver = source._receiver, None
    assert receiver is not None
    receiver._held.clear()
    receiver.close()
