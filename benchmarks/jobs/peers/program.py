"""What the programs in Python share: `install` makes the tables, `work` runs jobs until it is terminated, and `client`
obeys commands, one a line of JSON, and answers each with a line of JSON.

The database is that of BENCH_DATABASE_URL. There are three handlers: `noop` with a number, `picked` with a number, and
`post` with a URL, to which it posts a small body.
"""

import asyncio
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

Payload = dict[str, Any]
CONCURRENT_REQUESTS = 20
BODY = b'{"order_id": 42, "customer": "c-17", "total": "99.90"}'


class Client(Protocol):
    """How an application enqueues."""

    async def one(self, name: str, payload: Payload) -> None:
        """In a durable commit of its own."""

    async def many(self, name: str, payloads: Sequence[Payload]) -> None:
        """As many in one call."""

    async def claim(self, want: int) -> int:
        """Takes as many jobs as a worker would, in a durable commit; how many it got."""

    async def at_commit(self, name: str, payload: Payload) -> int:
        """Enqueues in a transaction; the time just before its commit was sent."""


class Peer(Protocol):
    """One system."""

    async def install(self, url: str) -> None: ...

    async def client(self, url: str) -> Client: ...

    async def work(self, url: str, stopped: asyncio.Event) -> None:
        """Runs jobs until stopped. `ready` is to be called when it could."""


def ready() -> None:
    print("ready", flush=True)


def http_jobs() -> bool:
    """Whether this run is one of HTTP jobs: then so many of them run at a time as with every system."""
    return os.environ.get("BENCH_HTTP") == "1"


async def main(peer: Peer) -> None:
    url = os.environ["BENCH_DATABASE_URL"]
    match sys.argv[1]:
        case "install":
            await peer.install(url)
        case "client":
            await _serve(await peer.client(url))
        case "work":
            stopped = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
            await peer.work(url, stopped)


async def _serve(client: Client) -> None:
    ready()
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await _obey(client, json.loads(line))), flush=True)


async def _obey(client: Client, command: dict[str, Any]) -> Any:
    match command:
        case {"do": "one", "count": int(count)}:
            began = time.perf_counter()
            for number in range(count):
                await client.one("noop", {"n": number})
            return time.perf_counter() - began
        case {"do": "many", "count": int(count), "size": int(size), **more}:
            began = time.perf_counter()
            for first in range(0, count, size):
                numbers = range(first, min(count, first + size))
                await client.many(*(("post", [{"url": more["url"]} for _ in numbers]) if "url" in more else
                                    ("noop", [{"n": number} for number in numbers])))  # fmt: skip
            return time.perf_counter() - began
        case {"do": "claim", "want": int(want), "times": int(times)}:
            return statistics.median([await _claim_ms(client, want) for _ in range(times)])
        case {"do": "pick-up", "number": int(number)}:
            return await client.at_commit("picked", {"n": number})
        case _:
            raise ValueError(f"unknown command: {command}")


async def _claim_ms(client: Client, want: int) -> float:
    began = time.perf_counter()
    got = await client.claim(want)
    milliseconds = (time.perf_counter() - began) * 1000
    if got != want:
        raise RuntimeError(f"a claim of {want} got {got}")
    return milliseconds
