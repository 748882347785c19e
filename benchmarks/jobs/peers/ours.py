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

START = """
select q.outbox_id, tide.job_worker_start('bench', 1, array[q.name], 1000)
  from tide.job_queue q where q.name = %(queue)s
"""
CLAIM = "select * from tide.job_claim(%s, %s, %s)"


class Client:
    def __init__(self, url: str) -> None:
        self._connection: psycopg.Connection[Any] = psycopg.connect(url, autocommit=True)
        self._queue = self._worker = 0
        self._worker_until = 0.0
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

    async def claim(self, want: int) -> int:
        """As an engine, but durably, as it claims where a queue has a limit."""
        if time.monotonic() > self._worker_until:  # a worker that is silent for long loses its claims
            self._queue, self._worker = self._connection.execute(START, {"queue": handlers.QUEUE}).fetchone() or (0, 0)
            self._worker_until = time.monotonic() + 10
        return len(self._connection.execute(CLAIM, [self._queue, self._worker, want], prepare=True).fetchall())

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
