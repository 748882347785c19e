"""Redis for the suites, and for what is true of its sink and source alone."""

import uuid
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import redis

from relay.backends.redis.sink import RedisSink
from relay.backends.sink import Features
from relay.local.servers import EmbeddedRedis
from relay.models import Record
from tests.backends.harness import Harness, Seen
from tests.backends.redis.cluster import RedisCluster
from tests.services.halt import halted

LARGEST_BYTES = 1024 * 1024
"""What the server is told to take at most: no less can be set."""


class RedisHarness(Harness):
    kind = RedisSink

    def __init__(self, server: EmbeddedRedis, **keys: Any) -> None:
        self.server = server
        self.keys = keys
        self.subject = self.stream = f"contract-{uuid.uuid4().hex[:8]}"
        with self.client() as client:
            client.config_set("proto-max-bulk-len", LARGEST_BYTES)

    @property
    def features(self) -> Features:
        once = bool(self.keys.get("exactly_once"))
        return replace(self.kind.features, largest_record_bytes=LARGEST_BYTES, deduplicates=once)

    def config(self) -> dict[str, Any]:
        return {"url": self.server.url} | self.keys

    def client(self, stream: str | None = None) -> "redis.Redis":
        """For the server that has the stream."""
        return redis.Redis.from_url(self.server.url, protocol=2, socket_timeout=20)

    def entries(self, stream: str | None = None) -> list[tuple[str, dict[bytes, bytes]]]:
        with self.client(stream) as client:
            return [(number.decode(), fields) for number, fields in client.xrange(stream or self.stream)]

    def ids(self, stream: str | None = None) -> list[int]:
        """The ids of the messages of all entries, in order."""
        return [int(fields[b"header.relay-id"].partition(b":")[2]) for _, fields in self.entries(stream)]

    def records(self, *streams: str, first: int = 1) -> list[Record]:
        """One for each name, to the stream of that name."""
        return [Record(n, f"orders:{n}", name, None, b"%d" % n, {}) for n, name in enumerate(streams, first)]

    def read_all(self) -> list[Seen]:
        return [seen(fields) for _, fields in self.entries()]

    def stall(self) -> AbstractContextManager[None]:
        return halted(self.server.pid)

    def stop(self) -> None:
        self.server.kill()

    def start(self) -> None:
        self.server.start()

    def wrong_credentials(self) -> dict[str, Any]:
        return {"url": self.server.url.replace(self.server.password, "wrong-password")}


def seen(fields: dict[bytes, bytes]) -> Seen:
    """As a receiver reads it by the documentation."""
    key = fields.get(b"key")
    headers = {
        name.removeprefix(b"header.").decode(): value.decode()
        for name, value in fields.items()
        if name.startswith(b"header.")
    }
    return Seen(fields[b"body"], None if key is None else key.decode(), headers)


class RedisClusterHarness(RedisHarness):
    """The same on a cluster. Its nodes keep the limits that Redis has by itself."""

    def __init__(self, cluster: RedisCluster, **keys: Any) -> None:
        self.cluster = cluster
        self.keys = keys
        self.subject = self.stream = f"contract-{uuid.uuid4().hex[:8]}"
        for node in cluster.nodes:
            with node.client() as client:
                client.config_set("proto-max-bulk-len", LARGEST_BYTES)

    def config(self) -> dict[str, Any]:
        return {"url": self.cluster.url} | self.keys

    def client(self, stream: str | None = None) -> "redis.Redis":
        return self.cluster.node_of(stream or self.stream).client()

    def stall(self) -> AbstractContextManager[None]:
        return self.cluster.stalled()

    def stop(self) -> None:
        self.cluster.kill()

    def start(self) -> None:
        self.cluster.start()

    def wrong_credentials(self) -> dict[str, Any]:
        return {"url": self.cluster.url.replace(self.cluster.password, "wrong-password")}
