"""Webhooks: a receiver that only counts, in a process of its own, by httpx.

`python -m benchmarks.backends.webhook` runs it: it prints its port, and ends with its input. What it has counted for a
path is what a GET of that path answers. With a number behind, it answers so many milliseconds late.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import httpx

from benchmarks.backends.base import Destination
from benchmarks.bare import Batches, Row, headers

IN_FLIGHT = 8
_STOP_SECONDS = 10


@contextmanager
def receiver(delay_ms: int = 0) -> Iterator[str]:
    """Yields its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(delay_ms)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2], text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.communicate(timeout=_STOP_SECONDS)


class WebhookDestination(Destination):
    """A request for each message, eight at a time; or, with `arrays`, one for a batch."""

    def __init__(self, url: str, *, arrays: bool) -> None:
        self._url = url
        self._arrays = arrays

    def config(self, place: str, backlog: int) -> dict[str, object]:  # noqa: ARG002
        return {"sink_type": "webhook", "url": f"{self._url}/{place}", "batch": self._arrays, "allow_http": True,
                "allow_private_network": True}  # fmt: skip

    def deliver(self, batches: Batches, place: str, backlog: int) -> None:  # noqa: ARG002
        url = f"{self._url}/{place}"
        with httpx.Client() as client, ThreadPoolExecutor(IN_FLIGHT) as pool:

            def post(row: Row) -> None:
                found = headers(row)
                message_id = found["relay-id"]
                found |= {"Content-Type": "application/json", "Idempotency-Key": message_id, "webhook-id": message_id,
                          "webhook-timestamp": str(int(time.time()))}  # fmt: skip
                client.post(url, content=row[1].encode(), headers=found).raise_for_status()

            for rows in batches:
                if self._arrays:
                    array = "[" + ",".join([row[1] for row in rows]) + "]"
                    client.post(url, content=array.encode(), headers={"Content-Type": "application/json"})
                else:
                    list(pool.map(post, rows))

    def count(self, place: str) -> int:
        return int(httpx.get(f"{self._url}/{place}").text)


class _Receiver(asyncio.Protocol):
    """One connection. Requests come one after the other, each with its length."""

    counted: ClassVar[Counter[bytes]] = Counter()
    delay_seconds: ClassVar[float] = 0.0

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            _, found, length = head.lower().partition(b"\r\ncontent-length:")
            size = int(length.partition(b"\r\n")[0]) if found else 0
            if len(rest) < size:
                return
            self._data = rest[size:]
            self._answer(head, rest[:size])

    def _answer(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        text = b""
        if method == b"GET":
            text = b"%d" % self.counted[path]
        else:
            self.counted[path] += len(json.loads(body)) if body.startswith(b"[") else 1
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)
        if self.delay_seconds and method != b"GET":
            asyncio.get_running_loop().call_later(self.delay_seconds, self._transport.write, answer)
        else:
            self._transport.write(answer)


async def _main() -> None:
    loop = asyncio.get_running_loop()
    _Receiver.delay_seconds = int(sys.argv[1]) / 1000
    server = await loop.create_server(_Receiver, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_main())
