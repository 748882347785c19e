"""What machines ask of a scheduler: `/metrics` for Prometheus, `/health` and `/ready` for whoever runs it."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from relay.httpd import HttpServer, Response


@dataclass(frozen=True, slots=True)
class Health:
    """How a scheduler is, at one moment."""

    pipelines_owned: int
    uptime_seconds: float
    reasons: tuple[str, ...]
    """Why it is not healthy, for people; empty when it is. They carry no secret."""
    ready: bool
    """It does its work: connected to the database, pipelines read."""


class SchedulerHttp:
    """Serves in threads of its own between `start` and `stop`.

    `snapshot` is called for every request, from those threads: it must be thread-safe and must not wait.
    """

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry, snapshot: Callable[[], Health]) -> None:
        self._address = address
        self._registry = registry
        self._snapshot = snapshot
        self._server: HttpServer | None = None

    def start(self) -> None:
        """Raises OSError if the address cannot be bound."""
        routes = {"/metrics": self._metrics, "/health": self._health, "/ready": self._ready}
        self._server = HttpServer(self._address, routes)

    def stop(self) -> None:
        """Frees the address. May be called twice, and without `start`."""
        if self._server:
            self._server.close()
            self._server = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, between `start` and `stop`."""
        return self._server.address if self._server else self._address

    def _metrics(self) -> Response:
        return Response(200, CONTENT_TYPE_LATEST, generate_latest(self._registry))

    def _health(self) -> Response:
        health = self._snapshot()
        body: dict[str, object] = {
            "status": "unhealthy" if health.reasons else "healthy",
            "pipelines_owned": health.pipelines_owned,
            "uptime_seconds": int(health.uptime_seconds),
        }
        if health.reasons:
            body["reasons"] = list(health.reasons)
        return _json(503 if health.reasons else 200, body)

    def _ready(self) -> Response:
        ready = self._snapshot().ready
        return _json(200 if ready else 503, {"ready": ready})


def _json(status: int, body: dict[str, object]) -> Response:
    return Response(status, "application/json", json.dumps(body, separators=(",", ":")).encode())
