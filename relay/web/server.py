"""uvicorn around the reception, and what machines ask of the process.

`/hooks/...`, `/health` and `/ready` are served on the public address; `/metrics`, and the reasons of the other two, on
an address of its own, because the first faces the open internet.
"""

import contextlib
import functools
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from relay.process import http_server
from relay.process.stop import Stop
from relay.settings import Settings, parse_address
from relay.web.connections import ACCEPTED_AT_ONCE, Connection, Connections, connections_limit
from relay.web.health import ApiHealth
from relay.web.metrics import ApiMetrics
from relay.web.webhooks.hooks import Hooks
from relay.web.webhooks.reception import Reception
from relay.web.webhooks.writer import WRITERS, Writer

log = structlog.get_logger(__name__)

BACKLOG = 2048
KEEPALIVE_SECONDS = 65


class Api:
    """Runs until `stop` is set. Raises OSError if an address cannot be bound, ConfigError or MigrationError if it makes
    no sense to start."""

    def __init__(self, settings: Settings, stop: Stop) -> None:
        self._settings = settings
        self._stop = stop
        self._hooks = Hooks(settings, stop)
        self._metrics = ApiMetrics(CollectorRegistry())
        self._writer = Writer(settings, self._metrics)
        self._metrics.pipelines.set_function(lambda: len(self._hooks))
        self._health = ApiHealth(self._hooks, self._writer, stop)

    def run(self) -> None:
        self._hooks.check()
        with contextlib.ExitStack() as stack:
            listening = stack.enter_context(_listen(parse_address(self._settings.api_addr)))
            machines = http_server.HttpServer(
                parse_address(self._settings.api_metrics_addr),
                {"/metrics": self._serve_metrics, "/health": self._health.health, "/ready": self._health.ready},
            )
            stack.callback(machines.close)
            reader = threading.Thread(target=self._hooks.run, name="hooks", daemon=True)
            writers = [
                threading.Thread(target=self._writer.run, name=f"writer-{n}", daemon=True) for n in range(WRITERS)
            ]
            for thread in (reader, *writers):
                thread.start()
                self._health.watch(thread)
            try:
                self._serve(listening)
            finally:
                self._stop.set()
                self._writer.close()
                ends_at = time.monotonic() + self._settings.statement_timeout_seconds
                for thread in (*writers, reader):
                    thread.join(max(0.0, ends_at - time.monotonic()))

    def _serve(self, listening: socket.socket) -> None:
        host, port = listening.getsockname()[:2]
        protocol: Any = functools.partial(Connection, Connections(connections_limit()))
        server = _Server(
            uvicorn.Config(
                self._app(), http=protocol, ws="none", lifespan="off", access_log=False, log_config=None,
                server_header=False, proxy_headers=False, backlog=ACCEPTED_AT_ONCE,
                timeout_keep_alive=KEEPALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, round(self._settings.worker_shutdown_timeout_seconds)),
            )
        )  # fmt: skip
        waiter = threading.Thread(target=self._end, args=(server,), name="stop", daemon=True)
        waiter.start()
        log.info("api started", host=host, port=port)
        server.run(sockets=[listening])
        log.info("api stopped")
        self._stop.set()
        waiter.join()

    def _end(self, server: uvicorn.Server) -> None:
        self._stop.wait()
        server.should_exit = True

    def _app(self) -> FastAPI:
        reception = Reception(self._hooks, self._writer, self._metrics)
        app = FastAPI(title="tide-relay", docs_url=None, redoc_url=None, openapi_url=None)
        # Plain routes: nothing of a request is parsed before its signature was checked.
        app.add_route("/hooks/{path:path}", reception.receive, methods=["POST"])
        app.add_route("/health", _route(lambda: self._health.health(public=True)), methods=["GET"])
        app.add_route("/ready", _route(lambda: self._health.ready(public=True)), methods=["GET"])
        return app

    def _serve_metrics(self) -> http_server.Response:
        return http_server.Response(200, CONTENT_TYPE_LATEST, generate_latest(self._metrics.registry))


def _route(answer: Callable[[], http_server.Response]) -> Callable[[Request], Awaitable[Response]]:
    async def respond(_request: Request) -> Response:
        found = answer()
        return Response(found.body, found.status, media_type=found.content_type)

    return respond


@contextlib.contextmanager
def _listen(address: tuple[str, int]) -> Iterator[socket.socket]:
    """Bound before anything else starts, so that an address in use is a clear error."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.create_server(address, family=family, backlog=BACKLOG) as listening:
        # asyncio does it only for sockets that it made itself. Every answer would wait 40 ms for an acknowledgement.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listening


class _Server(uvicorn.Server):
    """Signals are `relay.process.stop`'s."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or []:
            listening.listen(BACKLOG)  # asyncio has set it to what is accepted at once

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
