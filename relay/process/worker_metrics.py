"""The metrics of all processes of one `dramatiq relay.workers`, served from one address.

Each process keeps its numbers in files of a common folder (prometheus_client's multiprocess mode, see
`relay.process.multiprocess`), which one more process, forked by Dramatiq, adds up. It answers at `/health` and
`/ready`, too.

Nothing here imports prometheus_client before it is needed.
"""

import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.middleware import Middleware

from relay.broker.queues import DRAIN_ACTOR
from relay.process.http_server import HttpServer, Response
from relay.process.logs import configure_logging
from relay.process.multiprocess import is_alive, prepare_multiprocess
from relay.process.stop import wait_for_end_of_parent
from relay.process.worker_health import WorkerHealth
from relay.setting_values import parse_address
from relay.settings import Settings, variables

REBIND_SECONDS = 5.0

_log = logging.getLogger(__name__)


class WorkerMetricsEndpoint(Middleware):
    """Has Dramatiq fork the process that serves the metrics, and counts the drains that the age limit dropped."""

    @property
    def forks(self) -> list[Callable[[], int]]:
        return [serve_worker_metrics]

    def before_worker_boot(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        # Made here, so that they are served, as zeros, before the first drain.
        _metrics()

    def after_skip_message(self, _broker: dramatiq.Broker, message: Any) -> None:
        if message.actor_name == DRAIN_ACTOR:
            _metrics().count_stale(str(message.args[0]))

    def after_worker_shutdown(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(os.getpid())


def _metrics() -> Any:
    from relay.process.metrics.workers import worker_metrics

    return worker_metrics()


def serve_worker_metrics() -> int:
    """The body of the process that Dramatiq forks. Ends with SIGTERM, or when the Dramatiq master is gone."""
    settings = Settings.load()
    configure_logging(settings)
    folder = prepare_multiprocess()
    routes = {"/metrics": lambda: collect(folder), **WorkerHealth(folder, settings).routes}
    server = _bind(parse_address(settings.worker_metrics_addr), routes)
    _log.info("Serving the metrics of the workers at http://%s:%s/metrics", *server.address)
    wait_for_end_of_parent()
    server.close()
    return 0


def _bind(address: tuple[str, int], routes: dict[str, Callable[[], Response]]) -> HttpServer:
    """Tries until the address is free: the workers run on, and an earlier process may be about to release it."""
    said = False
    while True:
        try:
            return HttpServer(address, routes)
        except OSError as error:
            if not said:
                _log.error(
                    "The metrics and the health of the workers are not served: %s:%s: %s. The workers run on. Choose"
                    " another address with %s; retrying every %.0f s.",
                    *address,
                    error.strerror,
                    variables("worker_metrics_addr")[0],
                    REBIND_SECONDS,
                )
                said = True
        time.sleep(REBIND_SECONDS)


def collect(folder: Path) -> Response:
    """What all processes of the run have counted, dead ones included; gauges only of those alive."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

    for pid in _pids(folder):
        if not is_alive(pid):
            mark_process_dead(pid, str(folder))
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    return Response(200, CONTENT_TYPE_LATEST, generate_latest(registry))


def _pids(folder: Path) -> set[int]:
    names = (re.fullmatch(r"gauge_live\w*?_(\d+)\.db", path.name) for path in folder.iterdir())
    return {int(name[1]) for name in names if name}
