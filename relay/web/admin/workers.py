"""`/v1/stats` and `/v1/workers`."""

from fastapi import APIRouter

from relay.operations import job_queues as operations
from relay.web.admin.models import QueueDepth, Stats, WorkerBody
from relay.web.admin.request_session import Session

router = APIRouter(tags=["fleet"])

_COLUMNS = {"pending": "pending", "leased": "leased", "dead_letter": "dead"}


@router.get("/stats")
def read_stats(connection: Session, queue_name: str | None = None) -> Stats:
    """How many jobs there are of each status that is not a log."""
    queues = operations.stats(connection, queue_name)
    depth = [
        QueueDepth(queue_name=each.queue, status=status, count=getattr(each, column))
        for each in queues
        for status, column in _COLUMNS.items()
    ]
    due = [each.oldest_due_seconds for each in queues if each.due]
    return Stats(
        counts={status: sum(each.count for each in depth if each.status == status) for status in _COLUMNS},
        queue_depth=depth,
        oldest_pending_age_seconds=max(due, default=None),
        approximate=True,
    )


@router.get("/workers")
def list_workers(connection: Session) -> list[WorkerBody]:
    """The processes that run jobs, and when each gave its last sign of life."""
    return [WorkerBody.of(worker) for worker in operations.workers(connection)]
