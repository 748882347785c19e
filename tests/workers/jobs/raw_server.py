"""A server of the test's own loop that answers with exactly the bytes it is told to, and sees how connections end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Visit:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int
    """The first connection is 1."""
    requests: list[bytes] = field(default_factory=list)
    """The head of each."""

    async def request(self) -> bytes:
        """Waits for the next one. Raises IncompleteReadError if the client ends the connection first."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.requests.append(head)
        length = next((line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b"0")
        await self.reader.readexactly(int(length))
        return head

    async def answer(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Serve = Callable[[Visit], Awaitable[None]]


class RawServer:
    def __init__(self) -> None:
        self.url = ""
        self.visits: list[Visit] = []
        self.ended: list[asyncio.Event] = []
        """Of each connection: set when it is over."""

    @property
    def heads(self) -> list[bytes]:
        return [head for visit in self.visits for head in visit.requests]


async def always_ok(visit: Visit) -> None:
    while True:
        await visit.request()
        await visit.answer(OK)


@asynccontextmanager
async def raw_server(serve: Serve = always_ok) -> AsyncIterator[RawServer]:
    """`serve` has a connection from its beginning; when it returns, the connection is closed."""
    seen = RawServer()

    async def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = Visit(reader, writer, len(seen.visits) + 1)
        seen.visits.append(visit)
        seen.ended.append(asyncio.Event())
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await serve(visit)
        finally:
            writer.close()
            seen.ended[visit.number - 1].set()

    server = await asyncio.start_server(visited, "127.0.0.1", 0)
    seen.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield seen
    finally:
        server.close()
        for visit in seen.visits:
            visit.writer.transport.abort()
        await asyncio.wait_for(asyncio.gather(*(one.wait() for one in seen.ended)), 30)
