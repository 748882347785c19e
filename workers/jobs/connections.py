"""Connections for HTTP/1.1 on an event loop: kept alive after an answer, and used again.

h11 speaks the protocol. An address is judged before it is connected to, and the connection goes to the address that was
judged; TLS verifies the name. There is no limit to what is busy, because every job that is busy holds a slot; what is
idle is limited for each origin, in total, and in time.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Hashable
from typing import NamedTuple

import h11

from relay.backends.common.addresses import allowed, ask
from relay.backends.webhook.status_line import KEPT_BYTES, decided
from relay.backends.webhook.url import Origin

READ_BYTES = 64 * 1024
"""Of an answer, heads and framing included. What is longer ends its connection."""
KEEPALIVE_SECONDS = 30.0
MOST_IDLE = 256
MOST_IDLE_OF_ORIGIN = 100
BODY_SECONDS = 5.0
"""How long a body may take once its status has said what becomes of the job."""


class Answer(NamedTuple):
    status: int
    retry_after: bytes | None
    body: bytes
    """Its beginning."""


class Connection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, kept_bytes: int) -> None:
        self._loop = loop
        self._kept_bytes = kept_bytes
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=READ_BYTES)
        self._transport: asyncio.Transport
        self._head: asyncio.Future[None] | None = None
        self._end: asyncio.Future[None] | None = None
        self._status = 0
        self._retry_after: bytes | None = None
        self._body = b""
        self._read_bytes = 0
        self._begun = b""
        self.closed = False
        self.idle_since = 0.0

    @property
    def is_silent(self) -> bool:
        """Whether no byte of the answer has come: a connection that lay idle may have been closed at that time."""
        return self._read_bytes == 0

    async def exchange(
        self, method: str, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes, deadline: float
    ) -> Answer:
        """Sends a request; waits for the head of its answer, and for a while for the body.

        Raises OSError or h11.ProtocolError if no status comes. If it raises, or is cancelled, the connection is closed.
        """
        self._head, self._end = self._loop.create_future(), self._loop.create_future()
        self._body, self._read_bytes, self._retry_after, self._begun = b"", 0, None, b""
        try:
            self._transport.write(self._framed(h11.Request(method=method, target=target, headers=headers), body))
            await asyncio.wait([self._head], timeout=max(0.0, deadline - self._loop.time()))
            if not self._head.done():
                self._fail(TimeoutError())
            self._head.result()
            if not self._end.done():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(min(deadline, self._loop.time() + BODY_SECONDS)):
                        await self._end
            self._finish()
        except BaseException:
            self._head = self._end = None
            self.close()
            raise
        return Answer(self._status, self._retry_after, self._body)

    def close(self) -> None:
        self.closed = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._end is None or self._end.done():
            return self.close()  # it speaks without having been asked
        self._read_bytes += len(data)
        if len(self._begun) < KEPT_BYTES:
            self._begun += data[: KEPT_BYTES - len(self._begun)]
        self._understand(data)
        if self._read_bytes > READ_BYTES and not self._end.done():
            self._fail(h11.RemoteProtocolError(f"the answer is longer than {READ_BYTES} bytes"))
        return None

    def eof_received(self) -> None:
        self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._end is not None and not self._end.done():
            error = ConnectionResetError("the receiver ended the connection before its answer was complete")
            error.__cause__ = exc
            self._fail(error)

    def _framed(self, request: h11.Request, body: bytes) -> bytes:
        parts = [self._h11.send(request), self._h11.send(h11.Data(data=body)) if body else None]
        return b"".join(filter(None, [*parts, self._h11.send(h11.EndOfMessage())]))

    def _understand(self, data: bytes) -> None:
        assert self._head is not None
        assert self._end is not None
        try:
            self._h11.receive_data(data)
            while (event := self._h11.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Response):
                    self._status = event.status_code
                    self._retry_after = next((value for name, value in event.headers if name == b"retry-after"), None)
                    if not self._head.done():
                        self._head.set_result(None)
                elif isinstance(event, h11.Data):
                    if len(self._body) < self._kept_bytes:
                        self._body += event.data[: self._kept_bytes - len(self._body)]
                elif isinstance(event, h11.EndOfMessage):
                    self._end.set_result(None)
                    break
                elif isinstance(event, h11.ConnectionClosed):
                    break
        except h11.RemoteProtocolError as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Before the status it is the outcome. After it, only the end: the status has said what becomes of the job."""
        assert self._head is not None
        assert self._end is not None
        self.close()
        decision = None if self._head.done() else decided(self._begun)
        if decision is not None:
            self._status, self._retry_after = decision
            self._head.set_result(None)
        elif not self._head.done():
            self._head.set_exception(error)
        if not self._end.done():
            self._end.set_result(None)

    def _finish(self) -> None:
        self._head = self._end = None
        both_done = self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE
        # What follows an answer that is complete would be taken for that of the next request.
        if both_done and not self.closed and not self._h11.trailing_data[0]:
            self._h11.start_next_cycle()
        else:
            self.close()


class Connections:
    """Of one event loop, from which alone it is used."""

    def __init__(self, kept_bytes: int) -> None:
        """`kept_bytes` of each answer's body are kept."""
        self._kept_bytes = kept_bytes
        self._idle: dict[Hashable, deque[Connection]] = {}
        self._count = 0
        self._look_ups: dict[tuple[str, int], asyncio.Future[list[str] | OSError]] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def idle_count(self) -> int:
        """Without those that were closed while they lay idle."""
        return sum(not connection.closed for kept in self._idle.values() for connection in kept)

    def idle(self, key: Hashable) -> Connection | None:
        """One that was kept under this key, the one that was used last; None if there is none."""
        kept = self._idle.get(key)
        while kept:
            connection = kept.pop()
            self._count -= 1
            if not connection.closed:
                return connection
        return None

    def keep(self, key: Hashable, connection: Connection) -> None:
        """After an answer. Closes it if there are enough."""
        if connection.closed:
            return
        kept = self._idle.setdefault(key, deque())
        if self._closed or self._count >= MOST_IDLE or len(kept) >= MOST_IDLE_OF_ORIGIN:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        kept.append(connection)
        self._count += 1
        if self._sweep is None:
            self._sweep = loop.call_later(KEEPALIVE_SECONDS, self._close_old, loop)

    async def connect(
        self, origin: Origin, context: ssl.SSLContext | None, deadline: float, *, allow_private: bool
    ) -> Connection:
        """Raises OSError (TimeoutError among it), or ForbiddenAddress."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(deadline):
                found = await self._addresses(origin.host, origin.port)
        except TimeoutError:
            raise TimeoutError(f"no answer from DNS about {origin.host} in time") from None
        addresses = allowed(origin.host, found, allow_private=allow_private)
        last: OSError = ConnectionError(f"{origin.host} has no address")
        for others, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            try:
                # One that does not answer leaves time for the others.
                async with asyncio.timeout((deadline - loop.time()) / others):
                    _, connection = await loop.create_connection(
                        lambda: Connection(loop, self._kept_bytes), address, origin.port, ssl=context,
                        server_hostname=None if context is None else origin.host,
                    )  # fmt: skip
                return connection
            except TimeoutError:
                last = TimeoutError(f"no connection to {origin.host} in time")
            except OSError as error:
                last = error
        raise last

    def close(self) -> None:
        """What is idle; and what is busy, when it has its answer."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for kept in self._idle.values():
            for connection in kept:
                connection.close()
        self._idle.clear()

    async def _addresses(self, host: str, port: int) -> list[str]:
        """Looks a name up once for all who ask at the same time."""
        name = (host, port)
        if name not in self._look_ups:
            self._look_ups[name] = self._ask(host, port)
            self._look_ups[name].add_done_callback(lambda _: self._look_ups.pop(name, None))
        found = await asyncio.shield(self._look_ups[name])
        if isinstance(found, OSError):
            raise ConnectionError(f"{host} cannot be looked up: {found.strerror or found}") from found
        return found

    def _ask(self, host: str, port: int) -> "asyncio.Future[list[str] | OSError]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[str] | OSError] = loop.create_future()

        def tell(found: list[str] | OSError) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(future.set_result, found)

        ask(host, port, tell)
        return future

    def _close_old(self, loop: asyncio.AbstractEventLoop) -> None:
        old = loop.time() - KEEPALIVE_SECONDS
        for key, kept in list(self._idle.items()):
            while kept and (kept[0].closed or kept[0].idle_since <= old):
                kept.popleft().close()
                self._count -= 1
            if not kept:
                del self._idle[key]
        self._sweep = loop.call_later(KEEPALIVE_SECONDS / 2, self._close_old, loop) if self._idle else None
