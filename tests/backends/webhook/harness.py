"""Webhooks for the suite, and for what is true of the webhook sink alone."""

import uuid
from contextlib import AbstractContextManager
from typing import Any

from relay.backends.webhook.sink import WebhookSink
from relay.models import Record
from tests.backends.harness import Harness, Seen
from tests.services.halt import halted
from tests.services.http_receiver import HttpReceiver, Request, Rule


class WebhookHarness(Harness):
    """A path of its own on the session's receiver."""

    kind = WebhookSink
    subject = "orders"

    def __init__(self, server: HttpReceiver) -> None:
        self.server = server
        self.path = f"/{uuid.uuid4().hex[:12]}"
        self.url = f"{server.url}{self.path}"

    def config(self) -> dict[str, Any]:
        return {"url": self.url, "allow_http": True, "allow_private_network": True}

    def read_all(self) -> list[Seen]:
        return [Seen(request.body, None, request.headers) for request in self.accepted()]

    def accepted(self) -> list[Request]:
        return [request for request in self.requests() if 200 <= request.status < 300]

    def requests(self) -> list[Request]:
        return self.server.requests(self.path)

    def rule(self, *rules: Rule) -> None:
        self.server.rule(self.path, *rules)

    def stall(self) -> AbstractContextManager[None]:
        return halted(self.server.pid)

    def stop(self) -> None:
        self.server.kill()

    def start(self) -> None:
        self.server.start()


def numbered(*keys: str | None, headers: dict[str, str] | None = None) -> list[Record]:
    """One record for each key, with the numbers from 1."""
    return [
        Record(number, f"orders:{number}", "orders", key, b'{"n": %d}' % number, headers or {})
        for number, key in enumerate(keys, 1)
    ]
