"""Ours, as a client: the SDK on psycopg. Its workers are the product's own."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import psycopg

from benchmarks.jobs import handlers
from benchmarks.jobs.peers import program
from benchmarks.jobs.peers.program import Payload
from relay.jobs import enqueue_http


class Client:
    def __init__(self, url: str) -> None:
        self._connection: psycopg.Connection[Any] = psycopg.connect(url, autocommit=True)
        self._in_transaction: psycopg.Connection[Any] = psycopg.connect(url)

    async def one(self, name: str, payload: Payload) -> None:
        getattr(handlers, name).enqueue(self._connection, **payload)

    async def many(self, name: str, payloads: Sequence[Payload]) -> None:
        if name == "post":
            with self._in_transaction.transaction():
                for payload in payloads:
                    enqueue_http(self._in_transaction, handlers.QUEUE, payload["url"], text=program.BODY.decode())
        else:
            getattr(handlers, name).enqueue_many(self._connection, payloads)

    async def at_commit(self, name: str, payload: Payload) -> int:
        getattr(handlers, name).enqueue(self._in_transaction, **payload)
        now = time.monotonic_ns()
        self._in_transaction.commit()
        return now


class Peer:
    async def install(self, url: str) -> None:
        """`Stack.database` has done it."""

    async def client(self, url: str) -> Client:
        return Client(url)

    async def work(self, url: str, stopped: asyncio.Event) -> None:
        raise NotImplementedError("relay.workers do it")


if __name__ == "__main__":
    asyncio.run(program.main(Peer()))
