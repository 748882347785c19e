"""Fires the schedules of the queues that this scheduler owns.

Exactly once, however many schedulers believe that they own a queue: a fire names the time that was seen, and PostgreSQL
sets the next one, and enqueues the jobs, in one transaction. Nothing is remembered here, so no restart loses a tick.
"""

from collections.abc import Iterable
from typing import Any

import structlog

from relay.errors import ConfigError, Refused
from relay.jobs.cron import Due, due
from relay.jobs.errors import BadOptions
from relay.log_limit import LogLimit
from relay.masking import mask
from scheduler.chores import Pieces, pages
from scheduler.session import Session

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
# Of one question.
QUEUES = 500


class Schedules:
    """In one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._refusals = LogLimit()

    def fire(self, queues: Iterable[str]) -> Pieces:
        """Enqueues what is due. What PostgreSQL refuses stays due, and is tried at the next look."""
        for names in pages(list(queues), QUEUES):
            try:
                rows = self._session.schedules_due(names)
            except ConfigError as error:  # a right is missing: everything else goes on
                self._refused(error)
                return
            for row in rows:
                try:
                    self._fire(row)
                except (ConfigError, Refused) as error:
                    self._refused(error, schedule=row.schedule, queue=row.queue)
                yield
            yield

    def _fire(self, row: Any) -> None:
        reason = None
        try:
            owed = due(row.cron, row.time_zone, row.next_at, row.now, row.missed)
        except BadOptions as error:
            owed, reason = Due([], None), str(error)
        if owed.next_at is None and reason is None:
            reason = f"{row.cron!r} is never due again"
        ids = self._session.fire_schedule(row.schedule, row.next_at, owed.next_at, owed.ticks, reason)
        if ids is not None and reason:
            log.error("schedule is invalid", schedule=row.schedule, queue=row.queue, reason=reason)
        elif ids:
            log.info("schedule fired", schedule=row.schedule, queue=row.queue, jobs=len(ids))

    def _refused(self, error: Exception, **what: str) -> None:
        if times := self._refusals.count():
            log.error("schedules are not fired", reason=mask(str(error)), times=times, **what)
