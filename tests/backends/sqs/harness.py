"""SQS for the suites, and for what is true of it alone: moto, behind a proxy that takes it away and gives it back.

Messages are deleted as they are read, as a receiver does, and remembered here.
"""

import dataclasses
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from relay.backends.sink import Features, Sink
from relay.backends.sqs.message import unpack
from relay.backends.sqs.sink import SqsSink
from tests.backends.harness import Harness, Missing, Seen
from tests.services.moto import MotoServer
from tests.services.proxy import Proxy


class SqsQueue:
    """A queue of the server, as an independent client sees it."""

    def __init__(self, server: MotoServer, *, fifo: bool = False, **attributes: Any) -> None:
        self.name = f"contract-{uuid.uuid4().hex[:8]}" + (".fifo" if fifo else "")
        self.client = server.client("sqs")
        fifo_attributes = {"FifoQueue": "true"} if fifo else {}
        made = self.client.create_queue(QueueName=self.name, Attributes=fifo_attributes | attributes)
        self.url = made["QueueUrl"]

    def take_all(self) -> list[dict[str, Any]]:
        """What is in it now, with everything that SQS tells of a message; it is no longer in it then."""
        taken: list[dict[str, Any]] = []
        while messages := self._receive():
            taken += messages
            entries = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
            assert not self.client.delete_message_batch(QueueUrl=self.url, Entries=entries).get("Failed")
        return taken

    def _receive(self) -> list[dict[str, Any]]:
        answer = self.client.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=10,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        )
        found: list[dict[str, Any]] = answer.get("Messages", [])
        return found


class SqsHarness(Harness):
    kind = SqsSink

    def __init__(self, server: MotoServer, proxy: Proxy, *, fifo: bool = False, **attributes: Any) -> None:
        self.server = server
        self.proxy = proxy
        self.fifo = fifo
        self.queue = SqsQueue(server, fifo=fifo, **attributes)
        self.taken: list[dict[str, Any]] = []

    @property
    def features(self) -> Features:
        """A FIFO queue promises more than the class, which has both kinds."""
        return dataclasses.replace(self.kind.features, ordered=self.fifo)

    def make_sink(self, **overrides: Any) -> Sink:
        return super().make_sink(**patient(overrides))

    def config(self) -> dict[str, Any]:
        return self.server.config | {"endpoint_url": self.proxy.through(self.server.url), "queue_url": self.queue.url}

    def read_all(self) -> list[Seen]:
        self.taken += self.queue.take_all()
        return [seen(message) for message in self.taken]

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

    def missing_destination(self) -> Missing:
        name = f"missing-{self.queue.name}"
        url = self.queue.url.replace(self.queue.name, name)
        return Missing(name, {"queue_url": url}, {"create_queue": True}, "")


def patient(overrides: dict[str, Any]) -> dict[str, Any]:
    """With time enough for one call on a loaded machine: boto3 and moto are slow to think."""
    return overrides | {"timeout_ms": max(800, overrides.get("timeout_ms", 30_000))}


def seen(message: dict[str, Any]) -> Seen:
    body, key, headers = unpack(message["Body"], message.get("MessageAttributes", {}))
    return Seen(body, key, headers)
