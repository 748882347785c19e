"""What machines ask of a scheduler: `/metrics` for Prometheus, `/health` and `/ready` for what runs it."""

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from relay.process.health import health_response, ready_response
from relay.process.http_server import HttpServer, Response


@dataclass(frozen=True, slots=True)
class Health:
    """How a scheduler is, at one moment."""

    pipelines_owned: int
    uptime_seconds: float
    failures: tuple[str, ...] = ()
    """What is wrong with the process itself, for people; like the troubles, without secrets."""
    troubles: tuple[str, ...] = ()
    """What outside keeps it from its work: it is alive, and not ready."""


class SchedulerHttp:
    """Serves in its own threads between `start` and `stop`.

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
        facts = {"pipelines_owned": health.pipelines_owned, "uptime_seconds": int(health.uptime_seconds)}
        return health_response(facts, health.failures, health.troubles)

    def _ready(self) -> Response:
        health = self._snapshot()
        return ready_response([*health.failures, *health.troubles])
