"""A TCP proxy that makes trouble: it cuts, delays, stalls and half-closes connections.

`Proxy` controls it from a test; the proxy itself is a process of its own, so that its threads and descriptors are not
the test's, and it does not share the test's interpreter. The server behind it knows nothing, and loses nothing.
"""

import asyncio
import contextlib
import socket
import struct
import subprocess
import sys
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from relay.local.server_process import free_port

_WITH_A_RESET = struct.pack("ii", 1, 0)  # SO_LINGER


class Proxy:
    """Stands before the server of `url`. As a context manager it starts and stops; it starts in good health.

    Each verb returns when it is done.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        self._upstream = (parts.hostname, parts.port)
        self.port = free_port()
        self._process: subprocess.Popen[str] | None = None

    def through(self, url: str) -> str:
        """The same URL, with the proxy in place of host and port."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    def refuse(self) -> None:
        """As if the server were gone: connections are cut, new ones refused, until `heal`."""
        self._tell("refuse")

    def cut(self) -> None:
        """Resets every connection; new ones are fine."""
        self._tell("cut")

    def cut_after(self, sent_bytes: int) -> None:
        """Resets every connection, once, when so many more bytes have gone to the server: in the middle of a batch."""
        self._tell(f"cut_after {sent_bytes}")

    def half_close(self) -> None:
        """Ends the server's side of every connection. The client's side stays open, and nothing reads what it sends."""
        self._tell("half_close")

    def lead_to(self, port: int) -> None:
        """From now on, new connections go to that port; those that are there stay where they are: as after a failover
        under the same name.
        """
        self._tell(f"lead_to {port}")

    def delay(self, seconds: float) -> None:
        """From now on every piece of data is late by so much, in both directions."""
        self._tell(f"delay {seconds}")

    def stall(self) -> None:
        """Connections are accepted and stay, and nothing moves, until `heal`."""
        self._tell("stall")

    def heal(self) -> None:
        """From now on all is well, for new connections and for those that are left."""
        self._tell("heal")

    def __enter__(self) -> Self:
        command = [sys.executable, "-P", __file__, str(self.port), self._upstream[0], str(self._upstream[1])]
        # It ends when its input does, so also when this process is killed.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._answer() == "listening"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.communicate(timeout=10)

    def _tell(self, command: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        assert self._answer() == "done", "the proxy failed; its error is in the output of the tests"

    def _answer(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


# The process -----------------------------------------------------------------------------------------------------


class _Connection:
    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.half_closed = False

    def cut(self) -> None:
        plug = self.client.get_extra_info("socket")
        # One whose transport has closed by itself meanwhile needs no cut any more.
        if plug.fileno() >= 0:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _WITH_A_RESET)
        self.client.transport.abort()
        # Without a reset, so that the server can still read what has reached it.
        self.server.transport.abort()


class _Switchboard:
    def __init__(self, port: int, upstream: tuple[str, int]) -> None:
        self._port = port
        self._upstream = upstream
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._seconds = 0.0
        self._moving = asyncio.Event()
        self._moving.set()
        self._left_bytes: int | None = None

    async def run(self) -> None:
        await self._listen()
        print("listening", flush=True)
        commands = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        while line := await commands.readline():
            verb, *arguments = line.decode().split()
            await getattr(self, verb)(*map(float, arguments))
            print("done", flush=True)

    async def refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.cut()

    async def cut(self) -> None:
        for connection in list(self._connections):
            connection.cut()

    async def cut_after(self, sent_bytes: float) -> None:
        self._left_bytes = int(sent_bytes)

    async def half_close(self) -> None:
        for connection in self._connections:
            connection.half_closed = True
            with contextlib.suppress(OSError):
                connection.client.write_eof()

    async def lead_to(self, port: float) -> None:
        self._upstream = (self._upstream[0], int(port))

    async def delay(self, seconds: float) -> None:
        self._seconds = seconds

    async def stall(self) -> None:
        self._moving.clear()

    async def heal(self) -> None:
        self._seconds, self._left_bytes = 0.0, None
        self._moving.set()
        await self._listen()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)

    async def _accept(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(*self._upstream)
        except OSError:
            to_client.transport.abort()
            return
        connection = _Connection(to_client, to_server)
        self._connections.add(connection)
        try:
            await asyncio.gather(
                self._pump(connection, from_client, to_server, to_the_server=True),
                self._pump(connection, from_server, to_client, to_the_server=False),
            )
        except (OSError, asyncio.CancelledError):
            pass  # cancelled when the proxy ends: streams of Python 3.11 print a traceback if it goes on from here
        finally:
            self._connections.discard(connection)
            for writer in (to_client, to_server):
                writer.transport.abort()

    async def _pump(
        self, connection: _Connection, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, to_the_server: bool
    ) -> None:
        while data := await source.read(65536):
            if self._seconds:
                await asyncio.sleep(self._seconds)
            await self._moving.wait()
            if connection.half_closed:
                continue
            if to_the_server and self._left_bytes is not None:
                data = data[: self._left_bytes]
                self._left_bytes -= len(data)
            sink.write(data)
            await sink.drain()
            if to_the_server and self._left_bytes == 0:
                self._left_bytes = None
                await self.cut()
        with contextlib.suppress(OSError):
            sink.write_eof()


if __name__ == "__main__":
    asyncio.run(_Switchboard(int(sys.argv[1]), (sys.argv[2], int(sys.argv[3]))).run())
