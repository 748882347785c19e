"""Redis for the source suite, and for what is true of its source alone."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis

from relay.embedded import EmbeddedRedis
from relay.sources.redis import RedisSource
from tests.contract.redis_harness import RedisHarness
from tests.contract.source_harness import MissingSource, Sent, SourceHarness

GROUP = "readers"


class RedisSourceHarness(SourceHarness):
    kind = RedisSource

    def __init__(self, server: EmbeddedRedis, **keys: Any) -> None:
        self.server = server
        self.keys = keys
        self.stream = f"contract-{uuid.uuid4().hex[:8]}"
        self._sink = RedisHarness(server)

    def config(self) -> dict[str, Any]:
        made = {"url": self.server.url, "stream": self.stream, "group": GROUP, "create_stream": True}
        return made | self.keys

    def client(self) -> "redis.Redis":
        return redis.Redis.from_url(self.server.url, protocol=2, socket_timeout=20)

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

    @contextmanager
    def stall(self) -> Iterator[None]:
        with self._sink.stall():
            yield

    def stop(self) -> None:
        self.server.kill()

    def start(self) -> None:
        self.server.start()

    def wrong_credentials(self) -> dict[str, Any]:
        return self._sink.wrong_credentials()

    def missing_source(self) -> MissingSource:
        name = f"missing-{self.stream}"
        return MissingSource(name, {"stream": name, "create_stream": False}, ("create_stream",))
