"""RabbitMQ for the source suite, and for what is true of the RabbitMQ source alone."""

import uuid
from collections.abc import Sequence
from typing import Any

import amqp  # type: ignore[import-untyped]

from relay.backends.rabbitmq.source import RabbitmqSource
from tests.backends.rabbitmq.harness import Broker
from tests.backends.source_harness import MissingSource, Sent, SourceHarness
from tests.services.proxy import Proxy
from tests.services.rabbitmq import RabbitmqServer


class RabbitmqSourceHarness(SourceHarness):
    kind = RabbitmqSource

    def __init__(self, server: RabbitmqServer, proxy: Proxy | None = None) -> None:
        """With a proxy, it is what goes away: a server takes seconds to come back."""
        self.proxy = proxy
        self.broker = Broker(server)
        self.queue = f"contract-{uuid.uuid4().hex[:8]}"
        self.broker.make_queue(self.queue)
        self._sent = 0

    def config(self) -> dict[str, Any]:
        # The suite takes up to 600 messages before it acknowledges any.
        url = self.broker.server.url
        return {"url": self.proxy.through(url) if self.proxy else url, "queue": self.queue, "prefetch": 1000}

    def send(self, messages: Sequence[Sent]) -> None:
        self.send_raw([self._message(sent) for sent in messages])

    def send_raw(self, messages: Sequence[amqp.Message]) -> None:
        def publish(channel: amqp.Channel) -> None:
            answered: list[int] = []
            channel.confirm_select()
            channel.events["basic_ack"].add(lambda tag, multiple: answered.append(tag))
            for message in messages:
                # Not the channel's basic_publish, which waits for each.
                channel._basic_publish(message, routing_key=self.queue)
            while len(messages) not in answered:
                channel.connection.drain_events(timeout=10)

        self.broker.ask(publish)

    def stall(self) -> Any:
        return self.broker.stalled()

    def stop(self) -> None:
        if self.proxy is None:
            self.broker.kill()
        else:
            self.proxy.refuse()

    def start(self) -> None:
        if self.proxy is None:
            self.broker.server.start()
        else:
            self.proxy.heal()

    def wrong_credentials(self) -> dict[str, Any]:
        return {"url": self.broker.server.url.replace(self.broker.server.password, "wrong-password")}

    def missing_source(self) -> MissingSource:
        name = f"missing-{self.queue}"
        return MissingSource(name, {"queue": name}, ("rabbitmqadmin declare queue", "declare"))

    def _message(self, sent: Sent) -> amqp.Message:
        self._sent += 1
        headers = sent.headers if sent.key is None else sent.headers | {"relay-key": sent.key}
        return amqp.Message(
            sent.body, application_headers=headers, delivery_mode=2, message_id=f"{self.queue}:{self._sent}"
        )
