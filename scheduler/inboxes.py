"""What schedulers measure of inboxes. No scheduler owns an inbox, so each measures all of them."""

import structlog

from relay.errors import ConfigError
from relay.process.metrics.scheduler import SchedulerMetrics
from scheduler.session import Session

log = structlog.get_logger(__name__)

MEASURE_SECONDS = 15.0
# Of one look: each locks its table for that time, and the loop waits for it.
INBOXES = 200


class Inboxes:
    """In one session. Where there are many, a look goes on where the one before has ended."""

    def __init__(self, session: Session, metrics: SchedulerMetrics) -> None:
        self._session = session
        self._gauge = metrics.inbox_dead_messages
        self._after = ""
        self._seen: set[str] = set()
        self._measured: set[str] = set()

    def measure(self) -> None:
        """Sets the metric of the next inboxes, and forgets inboxes that are gone."""
        try:
            page = self._session.inbox_dead_page(self._after, INBOXES)
        except ConfigError as error:  # a right is missing: everything else goes on
            log.error("dead messages of inboxes are not counted", reason=str(error))
            return
        for row in page:
            if row.dead is not None:
                self._gauge.labels(row.name).set(row.dead)
                self._measured.add(row.name)
        self._seen.update(row.name for row in page)
        if len(page) == INBOXES:
            self._after = page[-1].name
            return
        for name in self._measured - self._seen:
            self._gauge.remove(name)
        self._measured &= self._seen
        self._after, self._seen = "", set()

    def forget(self) -> None:
        """The session is lost: what was measured gets old."""
        self._gauge.clear()
