"""A small HTTP server for what machines ask of a process: metrics and health. Not for the open internet.

Bounded in every direction: GET only, no request body is read, a fixed number of connections at a time, one request
on each, and a time limit on every read and write.

Why not uvicorn, which serves webhooks: schedulers and workers do not have the extra `api`, and an event loop with its
threads would run in each of them for a scrape now and then. This is the standard library's `http.server` with bounds.
"""

import logging
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, NamedTuple

CONNECTIONS_LIMIT = 32
IO_TIMEOUT_SECONDS = 5.0
STOP_POLL_SECONDS = 0.1

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
        self._server = _Server(address, routes)
        serve = threading.Thread(
            target=self._server.serve_forever, args=(STOP_POLL_SECONDS,), name="http-server", daemon=True
        )
        serve.start()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, with the port that was chosen if 0 was given."""
        host, port = self._server.server_address[:2]
        return str(host), port

    def close(self) -> None:
        """Stops serving and frees the address. May be called twice. Does not wait for requests in progress."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = CONNECTIONS_LIMIT

    def __init__(self, address: tuple[str, int], routes: Routes) -> None:
        self.routes = routes
        self._places = threading.BoundedSemaphore(CONNECTIONS_LIMIT)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the name service for the name of the host and may wait long for it.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, _request: Any, client_address: Any) -> None:
        # A client that hangs up is no error of ours; the debug log has it.
        _log.debug("HTTP request of %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = IO_TIMEOUT_SECONDS
    # Of a request without one: the standard library would answer it as HTTP/0.9 did, without a status.
    default_request_version = "HTTP/1.0"
    server_version = "tide-relay"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        route = self.server.routes.get(path)
        if route is None:
            self._send(text(HTTPStatus.NOT_FOUND, f"not found; try {', '.join(self.server.routes)}"))
            return
        try:
            response = route()
        except Exception:  # noqa: BLE001  whatever a route raises, the client gets an answer and the log the reason
            _log.exception("GET %s failed", path)
            response = text(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; the log says more")
        self._send(response)

    def _method_not_allowed(self) -> None:
        self._send(text(HTTPStatus.METHOD_NOT_ALLOWED, "GET only"), Allow="GET")

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _method_not_allowed  # noqa: N815

    def _send(self, response: Response, **headers: str) -> None:
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        _log.debug(format, *args)
