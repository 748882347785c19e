"""PgQueuer with asyncpg and uvloop, as its documentation and its own benchmark do.

For throughput: a larger `batch_size` than the 10 of its command line, `max_concurrent_tasks` of at least twice that,
and lists that are enqueued in one statement.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta

import aiohttp
import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.ports.repository import EntrypointExecutionParameter
from pgqueuer.queries import Queries

from benchmarks.jobs.peers import program
from benchmarks.jobs.peers.program import Payload
from benchmarks.jobs.tally import tally

BATCH_SIZE = 100


class Client:
    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._queries = Queries(AsyncpgDriver(connection))
        self._manager = uuid.uuid4()

    async def one(self, name: str, payload: Payload) -> None:
        await self._queries.enqueue(name, json.dumps(payload).encode())

    async def many(self, name: str, payloads: Sequence[Payload]) -> None:
        await self._queries.enqueue(
            [name] * len(payloads), [json.dumps(payload).encode() for payload in payloads], [0] * len(payloads)
        )

    async def claim(self, want: int) -> int:
        entrypoints = {"noop": EntrypointExecutionParameter(concurrency_limit=0)}
        return len(await self._queries.dequeue(want, entrypoints, self._manager, None, timedelta(seconds=30)))

    async def at_commit(self, name: str, payload: Payload) -> int:
        transaction = self._connection.transaction()
        await transaction.start()
        await self.one(name, payload)
        now = time.monotonic_ns()
        await transaction.commit()
        return now


class Peer:
    async def install(self, url: str) -> None:
        await Queries(AsyncpgDriver(await asyncpg.connect(url))).install()

    async def client(self, url: str) -> Client:
        return Client(await asyncpg.connect(url))

    async def work(self, url: str, stopped: asyncio.Event) -> None:
        queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))

        @queuer.entrypoint("noop")
        async def noop(job: Job) -> None:  # noqa: ARG001
            tally.add()

        @queuer.entrypoint("picked")
        async def picked(job: Job) -> None:
            tally.pick_up(json.loads(job.payload or b"")["n"])

        async with aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as session:

            @queuer.entrypoint("post")
            async def post(job: Job) -> None:
                async with session.post(json.loads(job.payload or b"")["url"], data=program.BODY) as answer:
                    answer.raise_for_status()
                tally.add()

            program.ready()
            # It has no less than two batches at a time.
            size = program.CONCURRENT_REQUESTS // 2 if program.http_jobs() else BATCH_SIZE
            running = asyncio.ensure_future(queuer.run(batch_size=size, max_concurrent_tasks=2 * size))
            await stopped.wait()
            queuer.shutdown.set()
            await running


if __name__ == "__main__":
    uvloop.run(program.main(Peer()))
