"""The process of `relay api`: the addresses that it serves, and the threads behind them.

`/hooks/...`, `/health` and `/ready` are served on the public address; `/metrics`, and the reasons of the other two, on
an address of its own, because the first faces the open internet. So is the admin API, which is served if it has tokens.
"""

import contextlib
import threading
import time
from collections.abc import Awaitable, Callable

import structlog
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from relay.process import http_server
from relay.process.stop import Stop
from relay.setting_values import parse_address
from relay.settings import Settings
from relay.web import framing
from relay.web.admin.server import Admin
from relay.web.connections import connections_limit
from relay.web.health import ApiHealth
from relay.web.listening import listen, serve
from relay.web.metrics import ApiMetrics
from relay.web.webhooks.hooks import Hooks
from relay.web.webhooks.reception import Reception
from relay.web.webhooks.writer import WRITERS, Writer

log = structlog.get_logger(__name__)


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
            listening = stack.enter_context(listen(parse_address(self._settings.api_addr)))
            admin = Admin.open(self._settings, self._stop, stack)
            machines = http_server.HttpServer(
                parse_address(self._settings.api_metrics_addr),
                {"/metrics": self._serve_metrics, "/health": self._health.health, "/ready": self._health.ready},
            )
            stack.callback(machines.close)
            reader = threading.Thread(target=self._hooks.run, name="hooks", daemon=True)
            writers = [
                threading.Thread(target=self._writer.run, name=f"writer-{n}", daemon=True) for n in range(WRITERS)
            ]
            for thread in (reader, *writers, *admin):
                thread.start()
                self._health.watch(thread)
            try:
                host, port = listening.getsockname()[:2]
                log.info("api started", host=host, port=port)
                serve(
                    self._app(),
                    listening,
                    self._stop,
                    connections_limit(),
                    self._settings.worker_shutdown_timeout_seconds,
                )
                log.info("api stopped")
            finally:
                self._stop.set()
                self._writer.close()
                ends_at = time.monotonic() + self._settings.statement_timeout_seconds
                for thread in (*writers, reader, *admin):
                    thread.join(max(0.0, ends_at - time.monotonic()))

    def _app(self) -> FastAPI:
        reception = Reception(self._hooks, self._writer, self._metrics)
        app = FastAPI(title="tide-relay", docs_url=None, redoc_url=None, openapi_url=None)
        app.add_middleware(framing.OneFraming, refusal={"error": "bad_request", "detail": framing.MESSAGE})
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
