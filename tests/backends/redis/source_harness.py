"""Redis for the source suite, and for what is true of its source alone."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

import redis

from relay.backends.redis.source import RedisSource
from tests.backends.redis.harness import RedisHarness
from tests.backends.source_harness import MissingSource, Sent, SourceHarness

GROUP = "readers"


class RedisSourceHarness(SourceHarness):
    kind = RedisSource
    takes_over_at_once = MappingProxyType({"claim_idle_ms": 3000})

    def __init__(self, sink: RedisHarness, **keys: Any) -> None:
        """`sink` is the harness of the sink on the same server, or cluster."""
        self.sink = sink
        self.stream = sink.stream
        self.keys = keys

    def config(self) -> dict[str, Any]:
        made = self.sink.config() | {"stream": self.stream, "group": GROUP, "create_stream": True}
        return made | self.keys

    def client(self) -> "redis.Redis":
        return self.sink.client()

    def send(self, messages: Sequence[Sent]) -> None:
        with self.client() as client, client.pipeline(transaction=False) as pipeline:
            for message in messages:
                headers = {f"header.{name}": value for name, value in message.headers.items()}
                key = {} if message.key is None else {"key": message.key}
                pipeline.xadd(self.stream, {"body": message.body, **key, **headers})
            pipeline.execute()

    def add(self, fields: dict[Any, Any], entry_id: str = "*") -> str:
        """As any producer does it; gives the entry's id."""
        with self.client() as client:
            added: bytes = client.xadd(self.stream, fields, id=entry_id)
            return added.decode()

    def pending(self) -> int:
        """How many entries were received and not acknowledged."""
        with self.client() as client:
            return int(client.xpending(self.stream, GROUP)["pending"])

    def stall(self) -> AbstractContextManager[object]:
        return self.sink.stall()

    def stop(self) -> None:
        self.sink.stop()

    def start(self) -> None:
        self.sink.start()

    def wrong_credentials(self) -> dict[str, Any]:
        return self.sink.wrong_credentials()

    def missing_source(self) -> MissingSource:
        name = f"missing-{self.stream}"
        return MissingSource(name, {"stream": name, "create_stream": False}, ("create_stream",))
