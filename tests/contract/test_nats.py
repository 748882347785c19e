import asyncio
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import nats
import pytest
from nats.js.api import AckPolicy, ConsumerConfig

from relay.sinks.nats import NatsSink
from tests.contract.harness import Harness, Missing, Seen
from tests.contract.suite import SinkSuite
from tests.services.nats import NatsServer

UNACKNOWLEDGED = ConsumerConfig(ack_policy=AckPolicy.NONE)


class NatsHarness(Harness):
    kind = NatsSink

    def __init__(self, server: NatsServer) -> None:
        self._server = server
        self._stream = f"contract-{uuid.uuid4().hex[:8]}"
        self.subject = f"{self._stream}.orders"

    def config(self) -> dict[str, Any]:
        return {"url": self._server.url, "stream": self._stream, "create_stream": True}

    def read_all(self) -> list[Seen]:
        return asyncio.run(self._read_all())

    @contextmanager
    def stall(self) -> Iterator[None]:
        pid = self._server.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        self._server.kill()

    def start(self) -> None:
        self._server.start()

    def wrong_credentials(self) -> dict[str, Any]:
        return {"url": self._server.url.replace(self._server.password, "wrong-password")}

    def missing_destination(self) -> Missing:
        name = f"missing-{self._stream}"
        return Missing(name, {"stream": name, "create_stream": False}, {"create_stream": True}, f"{name}.orders")

    async def _read_all(self) -> list[Seen]:
        client = await nats.connect(self._server.url)
        try:
            stream = client.jetstream()
            count = (await stream.stream_info(self._stream)).state.messages
            receiver = await stream.pull_subscribe("", stream=self._stream, config=UNACKNOWLEDGED)
            seen: list[Seen] = []
            while len(seen) < count:
                messages = await receiver.fetch(min(count - len(seen), 500), timeout=10)
                seen += [Seen(message.data, None, message.headers or {}) for message in messages]
            return seen
        finally:
            await client.close()


class TestNats(SinkSuite):
    @pytest.fixture
    def harness(self, nats_server: NatsServer) -> Harness:
        return NatsHarness(nats_server)
