"""Outbox to sink, for each sink that promises exactly once."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import redis

from tests.backends.object_storage.harness import rows_of
from tests.faults.exactly_once_flows import Flow, Forward, Handler, Services
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


FORWARD: tuple[type[Flow], ...] = (KafkaSinkFlow, RedisSinkFlow, LocalInboxFlow, RemoteInboxFlow, ObjectStorageFlow)
