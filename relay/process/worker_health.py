"""Whether the processes of one `dramatiq relay.workers` are alive and working, as files in their common folder tell.

In each worker process a thread writes a beat to the folder of its metrics; the process that serves the metrics reads
them. The beat of a process that is gone, stopped or stuck grows old; a process that ends normally removes its own.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import dramatiq
from dramatiq.cli import make_argument_parser
from dramatiq.middleware import Middleware

from relay.broker.factory import make_broker, ping
from relay.database.connection import connect, require_writable
from relay.process.health import Probe, health_response, ready_response, troubles
from relay.process.http_server import Response
from relay.process.multiprocess import is_alive
from relay.settings import Settings

BEAT_SECONDS = 2.0
# A machine that is busy or swaps may delay a process for a while: a restart would not make it faster.
SILENT_SECONDS = 30.0
PROBE_SECONDS = 2.0
PREFIX = "alive-"


@dataclass(frozen=True, slots=True)
class Beat:
    """What a worker process reports about itself."""

    pid: int
    at: float
    """`time.monotonic()`, which is the same for all processes of a machine."""
    lacking: list[str]
    """Queues that it should serve, and is not connected to."""
    stuck: int = 0
    """Slots that handlers of jobs hold, though their time is over."""


class Heartbeat(Middleware):
    """Beats as long as the process works."""

    def __init__(self, folder: Path, stuck: Callable[[], int] = lambda: 0) -> None:
        self._folder, self._stuck = folder, stuck
        self._ended = threading.Event()

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        threading.Thread(target=self._run, args=(broker, worker), name="heartbeat", daemon=True).start()

    def after_worker_shutdown(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        self._ended.set()

    def _run(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        path = self._folder / f"{PREFIX}{os.getpid()}"
        try:
            while not self._ended.is_set():
                beat = Beat(os.getpid(), time.monotonic(), lacking(broker, worker), self._stuck())
                new = path.with_suffix(".new")
                new.write_text(json.dumps(asdict(beat)))
                new.rename(path)
                self._ended.wait(BEAT_SECONDS)
        finally:
            path.unlink(missing_ok=True)


def lacking(broker: dramatiq.Broker, worker: dramatiq.Worker) -> list[str]:
    """The queues that the process should serve and does not. (What a broker calls delayed is no queue of ours.)"""
    wanted = worker.consumer_whitelist or broker.get_declared_queues()
    return sorted(name for name in wanted if not _serves(worker, name))


def _serves(worker: dramatiq.Worker, queue_name: str) -> bool:
    thread = worker.consumers.get(queue_name)
    return thread is not None and thread.is_alive() and getattr(thread.consumer, "is_connected", False)


class WorkerHealth:
    """Answers for all processes of one `dramatiq relay.workers`, in the process that serves their metrics."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder = folder
        self._processes = processes_asked_for()
        self._started_at = time.monotonic()
        self._probes = [
            Probe("PostgreSQL", lambda: _ask_database(settings)),
            Probe("the broker", lambda: _ask_broker(settings)),
        ]

    @property
    def routes(self) -> dict[str, Callable[[], Response]]:
        return {"/health": self.health, "/ready": self.ready}

    def health(self) -> Response:
        beats = self._beats()
        facts = {"processes": len(beats), "uptime_seconds": int(time.monotonic() - self._started_at)}
        if stuck := sum(beat.stuck for beat in beats):
            facts["stuck_jobs"] = stuck
        return health_response(facts, self._failures(beats))

    def ready(self) -> Response:
        beats = self._beats()
        reasons = [*self._failures(beats), *troubles(self._probes)]
        reasons += [f"process {beat.pid} has no connection to queue {name}" for beat in beats for name in beat.lacking]
        return ready_response(reasons)

    def _failures(self, beats: list[Beat]) -> list[str]:
        now = time.monotonic()
        silent = [beat for beat in beats if now - beat.at > SILENT_SECONDS]
        reasons = [f"worker process {beat.pid} has been silent for {now - beat.at:.0f} seconds" for beat in silent]
        if len(beats) < self._processes:
            reasons.append(f"{len(beats)} of {self._processes} worker processes are there")
        return reasons

    def _beats(self) -> list[Beat]:
        """Of the processes that are there, dead ones left out: their files stay when they are killed."""
        paths = [path for path in sorted(self._folder.glob(f"{PREFIX}*")) if path.suffix != ".new"]
        return [beat for path in paths if (beat := _read(path)) and is_alive(beat.pid)]


def _read(path: Path) -> Beat | None:
    try:
        return Beat(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None  # it has just ended


def processes_asked_for() -> int:
    """How many processes the dramatiq command was told to run. Its children have its command line."""
    parser = make_argument_parser()  # type: ignore[no-untyped-call]
    return int(parser.parse_known_args(sys.argv[1:])[0].processes)


def _ask_database(settings: Settings) -> None:
    hurried = settings.model_copy(
        update={"connect_timeout_seconds": PROBE_SECONDS, "statement_timeout_seconds": PROBE_SECONDS}
    )
    with connect(hurried, "tide-relay worker health") as connection:
        require_writable(connection)


def _ask_broker(settings: Settings) -> None:
    broker = make_broker(settings.broker_url)
    try:
        ping(broker)
    finally:
        broker.close()
