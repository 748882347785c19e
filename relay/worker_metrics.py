"""The metrics of all processes of one `dramatiq relay.workers`, served from one address.

Each process keeps its numbers in files of a common folder (prometheus_client's multiprocess mode), which one more
process, forked by Dramatiq, adds up. Two traps: prometheus_client reads `PROMETHEUS_MULTIPROC_DIR` when it is first
imported, and nobody clears the folder, so that the numbers of the previous run would come back. So the folder is
derived from the authkey of the Dramatiq master, which is random and inherited by its children, forked or spawned.
Every process holds a shared lock on its folder; a folder that nobody holds any more is removed by the next start.

Nothing here imports prometheus_client before it is needed.
"""

import fcntl
import hashlib
import logging
import multiprocessing
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.middleware import Middleware

from relay.httpd import HttpServer, Response
from relay.logs import configure_logging
from relay.queues import DRAIN_ACTOR
from relay.settings import Settings, parse_address, variables
from relay.stop import wait_for_end_of_parent

MULTIPROC_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
REBIND_SECONDS = 5.0
_FOLDER_PREFIX = "tide-relay-metrics-"
_LOCK_NAME = "lock"

_log = logging.getLogger(__name__)
# Kept open for the life of the process: closing it would give up the lock on the folder.
_held: list[int] = []


def prepare_multiprocess() -> Path:
    """Makes the folder of this run and names it to prometheus_client, which must not have been imported yet.

    A folder that `PROMETHEUS_MULTIPROC_DIR` names is used as it is. May be called again.
    """
    given = os.environ.get(MULTIPROC_VARIABLE)
    folder = Path(given) if given else _run_folder()
    if given:
        folder.mkdir(parents=True, exist_ok=True)
    else:
        _hold(folder)
        _remove_abandoned(folder)
        os.environ[MULTIPROC_VARIABLE] = str(folder)
    return folder


def _run_folder() -> Path:
    run = hashlib.sha256(multiprocessing.current_process().authkey).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"{_FOLDER_PREFIX}{run}"


def _hold(folder: Path) -> None:
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            descriptor = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        # Somebody may have removed the folder between the two lines above: then the lock is on nothing.
        if os.fstat(descriptor).st_nlink:
            _held.append(descriptor)
            return
        os.close(descriptor)


def _remove_abandoned(own: Path) -> None:
    for lock in own.parent.glob(f"{_FOLDER_PREFIX}*/{_LOCK_NAME}"):
        if lock.parent != own:
            _remove_if_abandoned(lock)


def _remove_if_abandoned(lock: Path) -> None:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # of another user, or another process is removing it
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(lock.parent, ignore_errors=True)
    except BlockingIOError:
        pass  # in use
    finally:
        os.close(descriptor)


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
            _metrics().stale_drains.labels(str(message.args[0])).inc()

    def after_worker_shutdown(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(os.getpid())


def _metrics() -> Any:
    from relay.metrics import worker_metrics

    return worker_metrics()


def serve_worker_metrics() -> int:
    """The body of the process that Dramatiq forks. Ends with SIGTERM, or when the Dramatiq master is gone."""
    settings = Settings.load()
    configure_logging(settings)
    folder = prepare_multiprocess()
    server = _bind(parse_address(settings.worker_metrics_addr), {"/metrics": lambda: collect(folder)})
    _log.info("Serving the metrics of the workers at http://%s:%s/metrics", *server.address)
    wait_for_end_of_parent()
    server.close()
    return 0


def _bind(address: tuple[str, int], routes: dict[str, Callable[[], Response]]) -> HttpServer:
    """Tries until the address is free: the workers go on meanwhile, and a predecessor may be about to leave it."""
    said = False
    while True:
        try:
            return HttpServer(address, routes)
        except OSError as error:
            if not said:
                _log.error(
                    "The metrics of the workers are not served: %s:%s: %s. The workers run on. Choose another address"
                    " with %s; trying again every %.0f s.",
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
        if not _alive(pid):
            mark_process_dead(pid, str(folder))
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    return Response(200, CONTENT_TYPE_LATEST, generate_latest(registry))


def _pids(folder: Path) -> set[int]:
    names = (re.fullmatch(r"gauge_live\w*?_(\d+)\.db", path.name) for path in folder.iterdir())
    return {int(name[1]) for name in names if name}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
