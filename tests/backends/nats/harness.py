"""NATS for the suite, and for what is true of the NATS sink alone."""

import asyncio
import json
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import nats
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from relay.backends.nats.sink import NatsSink
from relay.models import Record
from tests.backends.harness import Harness, Missing, Seen
from tests.services.halt import halted
from tests.services.nats import NatsServer

UNACKNOWLEDGED = ConsumerConfig(ack_policy=AckPolicy.NONE)


class NatsHarness(Harness):
    kind = NatsSink

    def __init__(self, server: NatsServer) -> None:
        self._server = server
        self.stream = f"contract-{uuid.uuid4().hex[:8]}"
        self.subject = f"{self.stream}.orders"

    def config(self) -> dict[str, Any]:
        return {"url": self._server.url, "stream": self.stream, "create_stream": True}

    def read_all(self) -> list[Seen]:
        async def read(stream: JetStreamContext) -> list[Seen]:
            count = (await stream.stream_info(self.stream)).state.messages
            receiver = await stream.pull_subscribe("", stream=self.stream, config=UNACKNOWLEDGED)
            seen: list[Seen] = []
            while len(seen) < count:
                messages = await receiver.fetch(min(count - len(seen), 500), timeout=10)
                seen += [Seen(message.data, None, message.headers or {}) for message in messages]
            return seen

        found: list[Seen] = self._ask(read)
        return found

    def stall(self) -> AbstractContextManager[None]:
        return halted(self._server.pid)

    def stop(self) -> None:
        self._server.kill()

    def start(self) -> None:
        self._server.start()

    def wrong_credentials(self) -> dict[str, Any]:
        return {"url": self._server.url.replace(self._server.password, "wrong-password")}

    def missing_destination(self) -> Missing:
        name = f"missing-{self.stream}"
        return Missing(name, {"stream": name, "create_stream": False}, {"create_stream": True}, f"{name}.orders")

    def records(self, *names: str, body: bytes = b"1") -> list[Record]:
        """One for each name, to the subject of that name in this stream."""
        return [Record(n, f"orders:{n}", f"{self.stream}.{name}", None, body, {}) for n, name in enumerate(names, 1)]

    def ids(self) -> list[int]:
        """The ids of the messages of all records in the stream, in order."""
        return [int(seen.headers["Nats-Msg-Id"].partition(":")[2]) for seen in self.read_all()]

    def make_stream(self, **options: Any) -> None:
        self._ask(lambda jetstream: jetstream.add_stream(name=self.stream, **options))

    def delete_stream(self) -> None:
        self._ask(lambda jetstream: jetstream.delete_stream(self.stream))

    def stream_config(self) -> StreamConfig:
        config: StreamConfig = self._ask(lambda jetstream: jetstream.stream_info(self.stream)).config
        return config

    def _ask(self, question: Callable[[JetStreamContext], Coroutine[Any, Any, Any]]) -> Any:
        async def ask() -> Any:
            client = await nats.connect(self._server.url)
            try:
                return await question(client.jetstream())
            finally:
                await client.close()

        return asyncio.run(ask())


class ConfiguredNats(NatsServer):
    """A server with more in its configuration; None takes something out."""

    def __init__(self, data_dir: Path, **extra: Any) -> None:
        super().__init__(data_dir)
        self._extra = extra

    def prepare(self) -> tuple[Sequence[str], dict[str, Any]]:
        command, options = super().prepare()
        path = Path(command[-1])
        merged = json.loads(path.read_text()) | self._extra
        path.write_text(json.dumps({key: value for key, value in merged.items() if value is not None}))
        return command, options
