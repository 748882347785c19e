"""Outbox to sink, for each sink that promises exactly once."""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import redis

from tests.backends.object_storage.harness import rows_of
from tests.faults.exactly_once_flows import OUTBOXES, Flow, Forward, Handler, Services
from tests.faults.exactly_once_tally import Ordered
from tests.fleets.pipelines import Pipelines
from tests.services.moto import REGION
from tests.services.proxy import Proxy


class KafkaSinkFlow(Forward):
    name = "kafka-sink"
    service = "kafka"

    def config(self, name: str) -> dict[str, Any]:
        assert self.services.kafka
        self.services.kafka.create_topic(name)
        return {"sink_type": "kafka", "brokers": self.services.kafka.url, "topic": name, "transactional": True}

    def arrived(self, name: str) -> list[str]:
        assert self.services.kafka
        records = self.services.kafka.read_all(name, "read_committed")
        return [(dict(record.headers)["relay-id"] or b"").decode() for record in records]


class RedisSinkFlow(Forward):
    name = "redis-sink"
    service = "redis"

    def config(self, name: str) -> dict[str, Any]:
        assert self.services.redis
        return {"sink_type": "redis", "url": self.services.redis.url, "stream": name, "exactly_once": True}

    def arrived(self, name: str) -> list[str]:
        assert self.services.redis
        with redis.Redis.from_url(self.services.redis.url) as client:
            entries: Any = client.xrange(name)
            return [fields[b"header.relay-id"].decode() for _, fields in entries]


class LocalInboxFlow(Forward):
    """An application takes rows away as it handles them: that each is there once, the event ids alone cannot keep."""

    name = "local-inbox"

    def config(self, name: str) -> dict[str, Any]:
        # Each batch takes several round trips.
        return {"sink_type": "inbox", "inbox": name, "create_inbox": True, "batch_size": 100}

    def make(self) -> None:
        for name in self.names:
            self.pipelines.run("select tide.inbox_create(%s)", name)
        self._handler = Handler(self.pipelines, self.names)
        super().make()

    def start(self) -> None:
        self._handler.start()

    def arrived(self, name: str) -> list[str]:
        return self._handler.handled(name)


class LanesFlow(LocalInboxFlow):
    """Several drains of a pipeline at a time, and another number of them while they work."""

    name = "lanes"

    def config(self, name: str) -> dict[str, Any]:
        return super().config(name) | {"lanes": 3, "batch_size": 20}

    def start(self) -> None:
        super().start()
        for name, outbox in zip(self.names, OUTBOXES, strict=True):
            self.pipelines.make(name, outbox, **self.keys(name) | {"lanes": 2})

    def ordered(self) -> Iterator[Ordered]:
        for name, outbox in zip(self.names, OUTBOXES, strict=True):
            keys = {f"{outbox}:{number}": key for number, key in self.pipelines.keys(outbox).items()}
            arrived: defaultdict[str | None, list[str]] = defaultdict(list)
            for dedup_id in self.arrived(name):
                arrived[keys.get(dedup_id)].append(dedup_id)
            for key in {*keys.values(), *arrived}:
                sent = sorted((i for i, k in keys.items() if k == key), key=lambda i: int(i.rpartition(":")[2]))
                yield Ordered(f"{name}/{key}", sent, arrived[key])


class RemoteInboxFlow(Forward):
    name = "remote-inbox"
    service = "remote"

    def config(self, name: str) -> dict[str, Any]:
        assert self.services.remote
        with self.services.remote.connect() as connection:
            connection.execute("select tide.inbox_create(%s)", [name])
        return {"sink_type": "inbox", "inbox": name, "postgres_url": self.services.remote.url}

    def arrived(self, name: str) -> list[str]:
        assert self.services.remote
        with self.services.remote.connect() as connection:
            return [row[0] for row in connection.execute(f"select event_id from tide.{name} order by inbox_seq")]


class ObjectStorageFlow(Forward):
    name = "object-storage"
    service = "moto"
    bucket = "exactly-once"

    def __init__(self, services: Services, pipelines: Pipelines) -> None:
        super().__init__(services, pipelines)
        self._stack = ExitStack()

    @cached_property
    def s3(self) -> Any:
        assert self.services.moto
        return self.services.moto.client("s3")

    def make(self) -> None:
        assert self.services.moto
        self.s3.create_bucket(Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        # It answers late: a kill often falls between an upload and its answer.
        self._proxy = self._stack.enter_context(Proxy(self.services.moto.url))
        self._proxy.delay(0.1)
        super().make()

    def close(self) -> None:
        self._stack.close()

    def config(self, name: str) -> dict[str, Any]:
        assert self.services.moto
        # An object ends where the outbox ends just then: after a crash nothing but the plan tells where.
        limits = {"max_rows": 5000, "max_age_ms": 100, "batch_size": 200}
        keys = {"sink_type": "object_storage", "bucket": self.bucket, "prefix": name} | limits
        return keys | self.services.moto.config | {"endpoint_url": self._proxy.through(self.services.moto.url)}

    def arrived(self, name: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{name}/")
        objects = sorted(each["Key"] for page in pages for each in page.get("Contents", []))
        return [id_ for key in objects for id_ in self._ids(key)]

    def _ids(self, key: str) -> Iterator[str]:
        for row in rows_of(key, self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()):
            yield json.loads(row.body)["id"]


FORWARD: tuple[type[Flow], ...] = (
    KafkaSinkFlow,
    RedisSinkFlow,
    LocalInboxFlow,
    LanesFlow,
    RemoteInboxFlow,
    ObjectStorageFlow,
)
