"""A small HTTP server for what machines ask of a process: metrics and health. Not for the open internet.

Bounded in every direction: GET only, no request body is read, one request on each connection, one deadline for each
from its beginning to the last byte of its answer, and a fixed number of connections. Each is only a socket and a few
bytes, in the event loop of one thread: slow clients hold no thread. When all places are taken, the oldest connection
that waits for its client is dropped: one that sends its request at once is always answered.

A route is called in a thread of its own, once at a time: all who ask meanwhile get that answer.

Why not uvicorn, which serves webhooks: schedulers and workers do not have the extra `api`.
"""

import asyncio
import contextlib
import logging
import re
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple, cast

CONNECTIONS_LIMIT = 64
REQUEST_SECONDS = 10.0
HEAD_BYTES_LIMIT = 16 * 1024
UNREAD_BYTES_LIMIT = 16 * 1024 * 1024
"""Of all answers together that clients have not read yet."""
BACKLOG = 1024
# Fewer than places: one that was just accepted is read before as many others come.
_ACCEPTED_AT_ONCE = 16

_REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) (\S+) HTTP/1\.[0-9]\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")

_log = logging.getLogger(__name__)


class Response(NamedTuple):
    status: int
    content_type: str
    body: bytes


Routes = Mapping[str, Callable[[], Response]]


def text(status: int, message: str) -> Response:
    return Response(status, "text/plain; charset=utf-8", f"{message}\n".encode())


class HttpServer:
    """Answers from the moment it is made until `close`. The routes are called in threads of the server.

    Raises OSError if the address cannot be bound.
    """

    def __init__(self, address: tuple[str, int], routes: Routes) -> None:
        listening = _listen(address)
        self._address: tuple[str, int] = listening.getsockname()[:2]
        self._service = _Service(listening, routes)
        self._thread = threading.Thread(target=self._service.run, name="http-server", daemon=True)
        self._thread.start()
        self._service.started.wait()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, with the port that was chosen if 0 was given."""
        return self._address

    def close(self) -> None:
        """Stops serving and frees the address. May be called twice. Does not wait for requests in progress."""
        self._service.stop()
        self._thread.join()


def _listen(address: tuple[str, int]) -> socket.socket:
    # Not by `socket.create_server`: on [::] it would refuse IPv4.
    listening = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


class _Service:
    """The connections. All methods but `run` and `stop` are called in the event loop."""

    def __init__(self, listening: socket.socket, routes: Routes) -> None:
        self.started = threading.Event()
        self._listening = listening
        self._routes = routes
        self._connections: dict[_Connection, None] = {}
        """The oldest first."""
        self._asked: dict[str, list[_Connection]] = {}
        """Who waits for a route that is being called."""

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self.started.set()

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stopped.set)

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await self._loop.create_server(
            lambda: _Connection(self), sock=self._listening, backlog=_ACCEPTED_AT_ONCE
        )
        self._listening.listen(BACKLOG)  # asyncio has set it to what is accepted at once
        self.started.set()
        await self._stopped.wait()
        server.close()
        for connection in list(self._connections):
            self._drop(connection)
        self._listening.close()

    def admit(self, connection: "_Connection") -> None:
        if len(self._connections) >= CONNECTIONS_LIMIT:
            idle = (one for one in self._connections if one.waits_for_client)
            self._drop(next(idle, next(iter(self._connections))))
        self._connections[connection] = None

    def forget(self, connection: "_Connection") -> None:
        self._connections.pop(connection, None)

    def _drop(self, connection: "_Connection") -> None:
        self.forget(connection)
        connection.transport.abort()

    def bound_unread(self, answered: "_Connection") -> None:
        """Drops the oldest that do not read their answers, if these are too long together; never the newest."""
        unread = [(one, one.transport.get_write_buffer_size()) for one in self._connections if one is not answered]
        excess = sum(size for _, size in unread) - UNREAD_BYTES_LIMIT
        for connection, size in unread:
            if excess > 0 and size:
                self._drop(connection)
                excess -= size

    def ask(self, path: str, connection: "_Connection") -> None:
        """Answers with what the route returns."""
        if path not in self._routes:
            connection.answer(text(HTTPStatus.NOT_FOUND, f"not found; try {', '.join(self._routes)}"))
        elif path in self._asked:
            self._asked[path].append(connection)
        else:
            threading.Thread(target=self._call, args=(path,), name=f"http-{path}", daemon=True).start()
            self._asked[path] = [connection]

    def _call(self, path: str) -> None:
        try:
            response = self._routes[path]()
        except Exception:  # noqa: BLE001  whatever a route raises, the client gets an answer and the log the reason
            _log.exception("GET %s failed", path)
            response = text(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; the log says more")
        with contextlib.suppress(RuntimeError):  # the server has been closed
            self._loop.call_soon_threadsafe(self._called, path, response)

    def _called(self, path: str, response: Response) -> None:
        for connection in self._asked.pop(path):
            connection.answer(response)


class _Connection(asyncio.Protocol):
    """One request. After its answer it is kept until the client closes it, so that no reset takes the answer away."""

    transport: asyncio.Transport

    def __init__(self, service: _Service) -> None:
        self._service = service
        self._head = b""
        self._method = ""
        self._ended = False
        """The client has ended its side."""
        self.waits_for_client = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._deadline = asyncio.get_running_loop().call_later(REQUEST_SECONDS, self.transport.abort)
        self._service.admit(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._deadline.cancel()
        self._service.forget(self)

    def data_received(self, data: bytes) -> None:
        if self._method:
            return  # a body, or another request: neither is read
        searched = max(0, len(self._head) - 3)
        self._head += data
        if end := _HEAD_END.search(self._head, searched):
            self._received(self._head[: end.end()])
        elif len(self._head) > HEAD_BYTES_LIMIT:
            self._received(self._head)

    def eof_received(self) -> bool:
        self._ended = True
        return not self.waits_for_client  # it is owed an answer

    def _received(self, head: bytes) -> None:
        line = _REQUEST_LINE.match(head)
        self._head, self._method = b"", line[1].decode() if line else "?"
        if len(head) > HEAD_BYTES_LIMIT:
            long_line = line is None or line.end() > HEAD_BYTES_LIMIT
            status = HTTPStatus.REQUEST_URI_TOO_LONG if long_line else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self.answer(text(status, f"at most {HEAD_BYTES_LIMIT} bytes"))
        elif line is None:
            self.answer(text(HTTPStatus.BAD_REQUEST, "not a request of HTTP/1"))
        elif self._method != "GET":
            self.answer(text(HTTPStatus.METHOD_NOT_ALLOWED, "GET only"), allow="Allow: GET\r\n")
        else:
            self.waits_for_client = False
            self._service.ask(line[2].partition(b"?")[0].decode("latin-1"), self)

    def answer(self, response: Response, allow: str = "") -> None:
        self.waits_for_client = True
        if self.transport.is_closing():
            return
        status = HTTPStatus(response.status)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nServer: tide-relay\r\n"
            f"Content-Type: {response.content_type}\r\nContent-Length: {len(response.body)}\r\n"
            f"Connection: close\r\n{allow}\r\n"
        )
        _log.debug("HTTP %s: %s", self._method, status.value)
        self.transport.write(head.encode() + (b"" if self._method == "HEAD" else response.body))
        self.transport.close() if self._ended else self.transport.write_eof()
        self._service.bound_unread(self)
