"""What schedulers do for jobs besides owning their queues: rescuing the jobs of dead workers, and measuring."""

from collections.abc import Iterable

import structlog

from relay.errors import ConfigError
from relay.process.metrics import SchedulerMetrics
from scheduler.session import Session

log = structlog.get_logger(__name__)

RESCUE_SECONDS = 5.0
MEASURE_SECONDS = 15.0


class JobChores:
    """In one session. `owned` gives the names of the queues whose pipelines this scheduler owns."""

    def __init__(self, session: Session, metrics: SchedulerMetrics, lease_seconds: float) -> None:
        self._session = session
        self._metrics = metrics
        self._lease_seconds = lease_seconds
        self._measured: set[str] = set()

    def rescue(self, queues: Iterable[str]) -> None:
        """Has the jobs of workers that gave no sign of life run again. Of all queues, if it owns any."""
        if not list(queues):
            return
        try:
            rescued = self._session.rescue_jobs(self._lease_seconds)
        except ConfigError as error:  # a right is missing: everything else goes on
            log.error("jobs of dead workers are not rescued", reason=str(error))
            return
        if rescued:
            log.warning("jobs of workers without a sign of life will run again", jobs=rescued)

    def measure(self, queues: Iterable[str]) -> None:
        """Sets the metrics of these queues, and forgets those of others."""
        names = set(queues)
        found = {row.queue: row for row in self._session.job_numbers(sorted(names))} if names else {}
        metrics = self._metrics
        for queue, row in found.items():
            for state in ("due", "scheduled", "leased", "dead"):
                metrics.jobs_open.labels(queue, state).set(getattr(row, state))
            metrics.job_oldest_seconds.labels(queue).set(row.oldest_due_seconds)
            metrics.job_gaps.labels(queue).set(row.gaps)
        for queue in self._measured - found.keys():
            for metric in (metrics.jobs_open, metrics.job_oldest_seconds, metrics.job_gaps):
                metric.remove_by_labels({"queue": queue})
        self._measured = set(found)

    def forget(self) -> None:
        """The session is lost: another scheduler may own the queues."""
        self.measure(())
