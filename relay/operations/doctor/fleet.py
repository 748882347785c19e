"""What `relay doctor` knows of schedulers, workers and the queues between them, read at one moment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dramatiq

from relay.broker.factory import depths, has_sign
from relay.broker.queues import DRAIN_QUEUES, MAINTENANCE_QUEUE, Depth
from relay.database.connection import Connection
from relay.operations import fleet, job_queues
from relay.operations.base import rows
from relay.operations.fleet import Process, Waiting
from relay.operations.job_queues import Numbers
from relay.operations.status_facts import is_alive, is_drained

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """At the fleet, and at the broker that the settings name, if there is one."""

    needs: Mapping[str, Sequence[str]]
    """Queue -> the pipelines whose drains it carries. Maintenance is always needed."""
    schedulers: Sequence[Row]
    """Those that are alive."""
    workers: Sequence[Process]
    no_worker: bool
    """Not even one that runs jobs only."""
    jobs: Sequence[Numbers]
    """Queues of jobs that are not paused and have no workers."""
    waiting: Mapping[str, Waiting]
    running: frozenset[str]
    """Queues of which a drain runs."""
    elsewhere: Sequence[Row] = ()
    """Schedulers that show no sign of themselves in this broker, and do not say that theirs fails."""
    depths: Mapping[str, Depth] = field(default_factory=dict)

    def serving(self, queue: str) -> list[Process]:
        """Worker processes that are to serve it, wherever they are connected to."""
        return [worker for worker in self.workers if queue in worker.queues]

    def consumers(self, queue: str) -> int:
        """Worker processes that serve it on this broker; where it does not say, those that are connected to theirs."""
        found = self.depths[queue].consumers
        return sum(queue not in w.lacking for w in self.serving(queue)) if found is None else found

    def waiting_text(self, queues: Sequence[str] | None = None) -> str:
        """Of drains that have waited too long, in these queues or all: what follows a finding."""
        long = [(queue, found) for queue, found in self.waiting.items() if found.is_long]
        texts = [fleet.waiting_text(queue, found) for queue, found in long if queues is None or queue in queues]
        return "".join(f"; {text}" for text in texts)

    @property
    def pipelines(self) -> list[str]:
        """All that need workers."""
        return [name for names in self.needs.values() for name in names]

    @property
    def others(self) -> list[str]:
        """Other databases for which workers serve queues on this broker."""
        return sorted({other for depth in self.depths.values() for other in depth.others})


def look_at_database(connection: Connection) -> Look:
    """Raises RelayError."""
    schedulers = [row for row in rows(connection, "status_schedulers") if is_alive(row)]
    pipelines = rows(connection, "status_pipelines", names=None, count_limit=1)
    needs: dict[str, list[str]] = {}
    for row in pipelines:
        if is_drained(row):
            needs.setdefault(DRAIN_QUEUES[row["direction"]], []).append(row["name"])
    return Look(
        needs={**needs, MAINTENANCE_QUEUE: []},
        schedulers=schedulers,
        workers=[found for found in fleet.processes(connection) if found.kind == "workers"],
        no_worker=not fleet.any_worker(connection),
        jobs=[queue for queue in job_queues.stats(connection) if not queue.paused and not queue.workers],
        waiting=fleet.waiting(schedulers),
        running=frozenset(DRAIN_QUEUES[row["direction"]] for row in pipelines if (row["lease_seconds"] or 0) > 0),
    )


def look(connection: Connection, broker: dramatiq.Broker) -> Look:
    """Raises RelayError. `broker` serves the database of the connection."""
    seen = look_at_database(connection)
    return replace(
        seen,
        elsewhere=[s for s in seen.schedulers if not s["broker_trouble"] and not has_sign(broker, s["scheduler_id"])],
        depths={depth.queue: depth for depth in depths(broker)},
    )
