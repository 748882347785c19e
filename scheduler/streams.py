"""What schedulers measure of stream tables. Each measures all of them: no scheduler owns one that is suspended."""

import time
from datetime import datetime, timedelta
from typing import Any

import structlog

from relay.errors import ConfigError
from relay.jobs.cron import next_tick
from relay.jobs.errors import BadOptions
from relay.pipelines.streams import stream_table_of
from relay.process.metrics.scheduler import SchedulerMetrics
from scheduler.chores import Pieces
from scheduler.session import Session

log = structlog.get_logger(__name__)

MEASURE_SECONDS = 15.0
# Of one question. Each costs a look at the changes that wait for it.
STREAMS = 20


class Streams:
    """In one session."""

    def __init__(self, session: Session, metrics: SchedulerMetrics) -> None:
        self._session = session
        self._staleness = metrics.stream_staleness_seconds
        self._overdue = metrics.stream_overdue_seconds
        self._failures = metrics.stream_failures
        self._equal_at: dict[str, float] = {}
        """When each was last seen to equal its query, in `time.monotonic()` seconds."""
        self._measured: set[str] = set()

    def measure(self) -> Pieces:
        """Sets the metrics of all, and forgets those that are gone."""
        found: set[str] = set()
        after = ""
        try:
            while page := self._session.stream_numbers(after, STREAMS):
                for row in page:
                    self._set(stream_table_of(row.pipeline), row)
                found |= {stream_table_of(row.pipeline) for row in page}
                after = page[-1].pipeline
                yield
        except ConfigError as error:  # a right is missing: everything else goes on
            log.error("stream tables are not measured", reason=str(error))
            return
        self._forget(self._measured - found)

    def _set(self, name: str, row: Any) -> None:
        now = time.monotonic()
        if not row.is_behind:
            self._equal_at[name] = now
        # Its sources may have rested for a day before the change that it lacks: then it is not a day behind.
        at_most = now - self._equal_at.get(name, float("-inf"))
        due_at = _due_at(row)
        late = (row.now - due_at).total_seconds() if due_at else 0.0
        self._measured.add(name)
        self._failures.labels(name).set(row.failures)
        self._staleness.labels(name).set(min(at_most, (row.now - row.shown_at).total_seconds()))
        self._overdue.labels(name).set(min(at_most, max(0.0, late)))

    def _forget(self, names: set[str]) -> None:
        for name in names:
            self._equal_at.pop(name, None)
            for gauge in (self._staleness, self._overdue, self._failures):
                gauge.remove(name)
        self._measured -= names

    def forget(self) -> None:
        """The session is lost: what was measured gets old."""
        self._forget(set(self._measured))


def _due_at(row: Any) -> datetime | None:
    """When the refresh after the one that it shows was due; None if its schedule has no such time."""
    if not row.cron:
        return row.shown_at + timedelta(seconds=row.interval_seconds)  # type: ignore[no-any-return]
    try:
        return next_tick(row.cron, row.time_zone, row.shown_at, seconds=True)
    except BadOptions:
        return None  # the pipeline is invalid, which is measured too
