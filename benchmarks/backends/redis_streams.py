"""Redis Streams, on a Redis that keeps nothing on disk, by redis-py."""

import json
from collections.abc import Sequence
from typing import Any

import redis

from benchmarks.backends.base import Destination, Origin, Write
from benchmarks.bare import Batches, Row, headers


class RedisDestination(Destination):
    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Any = redis.Redis.from_url(url)

    def config(self, place: str, backlog: int) -> dict[str, object]:  # noqa: ARG002
        return {"sink_type": "redis", "url": self._url, "stream": place}

    def deliver(self, batches: Batches, place: str, backlog: int) -> None:  # noqa: ARG002
        client: Any = redis.Redis.from_url(self._url)
        for rows in batches:
            with client.pipeline() as pipeline:
                for row in rows:
                    pipeline.xadd(place, _fields(row))
                pipeline.execute()

    def count(self, place: str) -> int:
        return int(self._client.xlen(place))

    def remove(self, place: str) -> None:
        self._client.delete(place)


class RedisOrigin(Origin):
    def __init__(self, url: str, stream: str) -> None:
        self._url = url
        self._stream = stream
        self._client: Any = redis.Redis.from_url(url)

    def fill(self, payload: str, headers: Sequence[dict[str, str]]) -> None:
        for begin in range(0, len(headers), 1000):
            with self._client.pipeline() as pipeline:
                for each in headers[begin : begin + 1000]:
                    pipeline.xadd(self._stream, {"body": payload, **_named(each)})
                pipeline.execute()

    def config(self, place: str) -> dict[str, object]:
        return {"source_type": "redis", "url": self._url, "stream": self._stream, "group": place}

    def receive(self, place: str, batch: int, messages: int, write: Write) -> None:
        self._client.xgroup_create(self._stream, place, "0")
        while messages > 0:
            [(_, entries)] = self._client.xreadgroup(place, "bare", {self._stream: ">"}, count=batch)
            write([self._row(entry_id.decode(), fields) for entry_id, fields in entries])
            self._client.xack(self._stream, place, *[entry_id for entry_id, _ in entries])
            messages -= len(entries)
        self._client.xgroup_destroy(self._stream, place)

    def _row(self, entry_id: str, fields: dict[bytes, bytes]) -> tuple[str, str, None, str, str]:
        found = {
            name.decode().removeprefix("header."): value.decode() for name, value in fields.items() if name != b"body"
        }
        return f"{self._stream}/{entry_id}", self._stream, None, fields[b"body"].decode(), json.dumps(found)


def _fields(row: Row) -> dict[str, str]:
    return {"body": row[1], **_named(headers(row))}


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {f"header.{name}": value for name, value in headers.items()}
