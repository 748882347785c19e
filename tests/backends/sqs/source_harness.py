"""SQS for the source suite: moto, behind a proxy that takes it away and gives it back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from relay.backends.source import Source
from relay.backends.sqs.message import pack
from relay.backends.sqs.source import SqsSource
from tests.backends.source_harness import MissingSource, Sent, SourceHarness
from tests.backends.sqs.harness import SqsQueue, patient
from tests.backends.steps import Limits
from tests.services.moto import MotoServer
from tests.services.proxy import Proxy


class SqsSourceHarness(SourceHarness):
    kind = SqsSource

    def __init__(self, server: MotoServer, proxy: Proxy) -> None:
        self.server = server
        self.proxy = proxy
        self.queue = SqsQueue(server)

    def make_source(self, **overrides: Any) -> Source:
        return super().make_source(**patient(overrides))

    def config(self) -> dict[str, Any]:
        address = {"endpoint_url": self.proxy.through(self.server.url), "queue_url": self.queue.url}
        return self.server.config | address | {"visibility_timeout": Limits.redelivery_seconds}

    def send(self, messages: Sequence[Sent]) -> None:
        request: list[dict[str, Any]] = []
        for number, message in enumerate(messages):
            text, attributes = pack(message.body, message.key, message.headers)
            entry = {"Id": str(number), "MessageBody": text, "MessageAttributes": attributes}
            if len(request) == 10 or sum(len(other["MessageBody"]) for other in request) + len(text) > 1_000_000:
                self._send(request)
                request = []
            request.append(entry)
        self._send(request)

    def _send(self, request: list[dict[str, Any]]) -> None:
        assert not self.queue.client.send_message_batch(QueueUrl=self.queue.url, Entries=request).get("Failed")

    @contextmanager
    def stall(self) -> Iterator[None]:
        self.proxy.stall()
        try:
            yield
        finally:
            self.proxy.heal()

    def stop(self) -> None:
        self.proxy.refuse()

    def start(self) -> None:
        self.proxy.heal()

    def missing_source(self) -> MissingSource:
        name = f"missing-{self.queue.name}"
        url = self.queue.url.replace(self.queue.name, name)
        return MissingSource(name, {"queue_url": url}, ("aws sqs create-queue", "create_queue"))
