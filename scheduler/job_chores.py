"""What schedulers do for jobs besides owning their queues: rescuing the jobs of dead workers, and measuring."""

from collections.abc import Iterable
from typing import Any

import structlog

from relay.errors import ConfigError
from relay.process.metrics.scheduler import SchedulerMetrics
from scheduler.chores import Pieces, pages
from scheduler.session import Session

log = structlog.get_logger(__name__)

RESCUE_SECONDS = 5.0
MEASURE_SECONDS = 15.0
# Of one question.
QUEUES = 10


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

    def measure(self, queues: Iterable[str]) -> Pieces:
        """Sets the metrics of these queues, and forgets those of others."""
        names = sorted(set(queues))
        found: set[str] = set()
        for page in pages(names, QUEUES):
            for row in self._session.job_numbers(page):
                found.add(row.queue)
                self._set(row)
            yield
        self._forget(self._measured - found)
        self._measured = found

    def _set(self, row: Any) -> None:
        metrics = self._metrics
        self._measured.add(row.queue)
        for state in ("due", "scheduled", "leased", "dead"):
            metrics.jobs_open.labels(row.queue, state).set(getattr(row, state))
        metrics.job_oldest_seconds.labels(row.queue).set(row.oldest_due_seconds)
        metrics.job_gaps.labels(row.queue).set(row.gaps)

    def _forget(self, queues: Iterable[str]) -> None:
        metrics = self._metrics
        for queue in queues:
            for metric in (metrics.jobs_open, metrics.job_oldest_seconds, metrics.job_gaps):
                metric.remove_by_labels({"queue": queue})

    def forget(self) -> None:
        """The session is lost: another scheduler may own the queues."""
        self._forget(self._measured)
        self._measured = set()
