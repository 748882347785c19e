"""awa with its queue storage, which is what it installs.

Its documentation for throughput: `enqueue_many_copy` for many jobs; more `max_workers` than the default of 50, and two
`claimers`, for a hot queue.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from awa import AsyncClient

from benchmarks.jobs.peers import program
from benchmarks.jobs.peers.program import Payload
from benchmarks.jobs.tally import tally

QUEUE = "bench"
WORKERS = 256
CLAIMERS = 2


@dataclass
class Noop:
    n: int


@dataclass
class Picked:
    n: int


@dataclass
class Post:
    url: str


KINDS: dict[str, type[Noop | Picked | Post]] = {"noop": Noop, "picked": Picked, "post": Post}


class Client:
    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def one(self, name: str, payload: Payload) -> None:
        await self._client.insert(KINDS[name](**payload), queue=QUEUE)

    async def many(self, name: str, payloads: Sequence[Payload]) -> None:
        await self._client.enqueue_many_copy([KINDS[name](**payload) for payload in payloads], queue=QUEUE)

    async def claim(self, want: int) -> int:
        raise NotImplementedError("its claim is a part of its runtime")

    async def at_commit(self, name: str, payload: Payload) -> int:
        transaction = await self._client.transaction()
        await transaction.insert(KINDS[name](**payload), queue=QUEUE)
        now = time.monotonic_ns()
        await transaction.commit()
        return now


class Peer:
    async def install(self, url: str) -> None:
        client = AsyncClient(url)
        await client.migrate()
        await client.install_queue_storage()

    async def client(self, url: str) -> Client:
        return Client(AsyncClient(url))

    async def work(self, url: str, stopped: asyncio.Event) -> None:
        client = AsyncClient(url, max_connections=20)

        @client.task(Noop, queue=QUEUE)
        async def noop(job: Any) -> None:  # noqa: ARG001
            tally.add()

        @client.task(Picked, queue=QUEUE)
        async def picked(job: Any) -> None:
            tally.pick_up(job.args.n)

        async with aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as session:

            @client.task(Post, queue=QUEUE)
            async def post(job: Any) -> None:
                async with session.post(job.args.url, data=program.BODY) as answer:
                    answer.raise_for_status()
                tally.add()

            workers = program.CONCURRENT_REQUESTS if program.http_jobs() else WORKERS
            await client.start([{"name": QUEUE, "max_workers": workers, "claimers": CLAIMERS}])
            program.ready()
            await stopped.wait()
            await client.shutdown()


if __name__ == "__main__":
    asyncio.run(program.main(Peer()))
