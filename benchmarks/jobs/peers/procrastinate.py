"""procrastinate with its connector for psycopg 3, whose pool it opens itself.

Its guide for throughput: `concurrency` for jobs that are coroutines, `batch_defer_async` for many jobs, and LISTEN and
NOTIFY, which are its default. It fetches jobs one by one, whatever the concurrency.
"""

import asyncio
import time
from collections.abc import Sequence

import aiohttp
import psycopg
from procrastinate import App, PsycopgConnector
from procrastinate.jobs import JobDeferrer

from benchmarks.jobs.peers import program
from benchmarks.jobs.peers.program import Payload
from benchmarks.jobs.tally import tally

CONCURRENCY = 100
CONNECTIONS = 10


class Client:
    def __init__(self, app: App, connection: psycopg.AsyncConnection) -> None:
        self._app = app
        self._connection = connection
        self._worker: int | None = None

    async def one(self, name: str, payload: Payload) -> None:
        await self._task(name).defer_async(**payload)

    async def many(self, name: str, payloads: Sequence[Payload]) -> None:
        await self._task(name).batch_defer_async(*payloads)

    async def claim(self, want: int) -> int:  # noqa: ARG002  it takes one
        if self._worker is None:
            self._worker = await self._app.job_manager.register_worker()
        return int(await self._app.job_manager.fetch_job(None, self._worker) is not None)

    async def at_commit(self, name: str, payload: Payload) -> int:
        await self._app.configure_task(name, connection=self._connection).defer_async(**payload)
        now = time.monotonic_ns()
        await self._connection.commit()
        return now

    def _task(self, name: str) -> JobDeferrer:
        return self._app.configure_task(name)


def _app(url: str) -> App:
    return App(connector=PsycopgConnector(conninfo=url, min_size=2, max_size=CONNECTIONS))


class Peer:
    async def install(self, url: str) -> None:
        async with _app(url).open_async() as app:
            await app.schema_manager.apply_schema_async()

    async def client(self, url: str) -> Client:
        app = _app(url)
        await app.open_async()
        return Client(app, await psycopg.AsyncConnection.connect(url))

    async def work(self, url: str, stopped: asyncio.Event) -> None:
        app = _app(url)

        @app.task(name="noop")
        async def noop(n: int) -> None:  # noqa: ARG001
            tally.add()

        @app.task(name="picked")
        async def picked(n: int) -> None:
            tally.pick_up(n)

        async with app.open_async(), aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as session:

            @app.task(name="post")
            async def post(url: str) -> None:
                async with session.post(url, data=program.BODY) as answer:
                    answer.raise_for_status()
                tally.add()

            concurrency = program.CONCURRENT_REQUESTS if program.http_jobs() else CONCURRENCY
            running = asyncio.ensure_future(
                app.run_worker_async(concurrency=concurrency, install_signal_handlers=False, name="bench")
            )
            program.ready()
            await stopped.wait()
            running.cancel()
            await asyncio.wait([running])


if __name__ == "__main__":
    asyncio.run(program.main(Peer()))
