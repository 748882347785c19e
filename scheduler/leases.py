"""Leases that PostgreSQL has forgotten: in a crash, or because another server took over.

A drain begins without waiting for the disk. The invariant that makes this right:

    A drain begins only while `tide.lease_memory` has its row. It has one only if no begin was forgotten, or each
    pipeline whose begin may be forgotten has got a lease that outlasts every publish of that drain.

A crash empties the table, because it is not logged. It also ends every session, so each scheduler comes here before it
emits anything. A begin that was forgotten is of a drain that had not settled yet: a settle waits for the disk, and for
everything before it. So what that drain may be publishing is still above the offset, or was to be redelivered.
"""

import structlog

from scheduler.session import Session

log = structlog.get_logger(__name__)


def remember(session: Session) -> list[str]:
    """Gives a lease to each pipeline that may be in a drain, if leases were forgotten. Returns these.

    Its worker gives the lease back when it ends the drain. Raises NotConnected.
    """
    if session.leases_are_whole():
        return []
    unsure = [
        row.name
        for row in session.unsure_leases()
        if row.redelivers or session.has_messages_after(row.outbox_id, row.offset_id)
    ]
    given = session.remember_leases(unsure)
    log.warning("PostgreSQL has forgotten leases; what may be in a drain waits for its end", pipelines=len(given))
    return given
