"""The processes that are alive, as they say in the database: which queues workers serve, and whether `relay api` runs.

And which drains wait for a worker, as the schedulers say.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from relay.database.connection import Connection
from relay.operations import job_queues
from relay.operations.base import counted, rows, seconds_text
from relay.process.presence import SILENT_SECONDS

# From enqueue to begin a drain takes milliseconds; schedulers look every five seconds whether it has begun.
UNTAKEN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Process:
    """One that gave a sign of life within a minute."""

    kind: Literal["workers", "api"]
    host: str
    pid: int
    version: str
    queues: Sequence[str]
    """What a worker process is to serve."""
    lacking: Sequence[str]
    """Those of them that it is not connected to."""

    @property
    def where(self) -> str:
        return f"{self.host}:{self.pid}"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Drains of a queue that no worker has taken."""

    drains: int = 0
    seconds: float = 0.0
    """For how long the oldest has waited."""

    def __add__(self, other: "Waiting") -> "Waiting":
        return Waiting(self.drains + other.drains, max(self.seconds, other.seconds))

    @property
    def is_long(self) -> bool:
        return self.seconds >= UNTAKEN_SECONDS


def processes(connection: Connection) -> list[Process]:
    """Those that are alive. Raises RelayError."""
    return [Process(**row) for row in rows(connection, "status_processes", silent_seconds=SILENT_SECONDS)]


def any_worker(connection: Connection) -> bool:
    """Whether a worker process is alive, of messages or of jobs. Raises RelayError."""
    if any(process.kind == "workers" for process in processes(connection)):
        return True
    return any(worker.silent_seconds < SILENT_SECONDS for worker in job_queues.workers(connection))


def waiting(schedulers: Iterable[Mapping[str, Any]]) -> dict[str, Waiting]:
    """By queue. `schedulers` are rows of `status_schedulers`."""
    found: dict[str, Waiting] = {}
    for row in schedulers:
        for queue, said in row["waiting"].items():
            found[queue] = found.get(queue, Waiting()) + Waiting(said["drains"], said["seconds"])
    return found


def waiting_text(queue: str, found: Waiting) -> str:
    """`3 drains have waited for 82 s in tide.forward, none was taken`."""
    drains = counted(found.drains, "drain has", "drains have")
    none = "it was not taken" if found.drains == 1 else "none was taken"
    return f"{drains} waited for {seconds_text(found.seconds)} in {queue}, and {none}"
