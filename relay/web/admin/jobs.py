"""`/v1/jobs`: enqueue, list, read, replay, cancel."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response

from relay.operations import job_actions, job_queues
from relay.operations import jobs as operations
from relay.operations.base import Connection
from relay.operations.job_errors import NoSuchJob
from relay.operations.jobs import Filter, NewJob, State
from relay.web.admin.errors import Problem
from relay.web.admin.exact import ExactRoute, answer, json_answer, json_text
from relay.web.admin.http_payload import checked_payload
from relay.web.admin.models import (
    AttemptBody,
    Bulk,
    Cancelled,
    EnqueuedBody,
    JobBody,
    JobFilter,
    JobItem,
    JobPage,
    NewJobBody,
    Replayed,
    ReplayRequest,
    body_of,
)
from relay.web.admin.request_session import Session

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=ExactRoute)

MOST_OFFSET = 10_000


@router.post("", status_code=201, responses={200: {"model": EnqueuedBody, "description": "Its key was in use."}})
def enqueue_job(new: NewJobBody, connection: Session, response: Response) -> EnqueuedBody:
    """Enqueues a job, in a transaction of its own. 200 instead of 201: the idempotency key is that of the job given."""
    payload, headers = checked_payload(new) if new.kind == "http" else (new.payload, new.headers)
    try:
        made = operations.enqueue(connection, _new_job(new, payload, headers))
    except NoSuchJob as error:
        raise Problem(404, "queue_not_found", str(error)) from error
    if not made.is_new:
        response.status_code = 200
    status = "pending" if made.is_new else operations.show(connection, made.job).state
    return EnqueuedBody(
        job_id=UUID(made.job),
        created=made.is_new,
        queue_name=new.queue_name,
        status=status,
        idempotency_key=new.idempotency_key,
    )


def _new_job(new: NewJobBody, payload: dict[str, Any], headers: dict[str, Any]) -> NewJob:
    return NewJob(
        queue=new.queue_name,
        name=new.name,
        payload=json_text(payload),
        kind=new.our_kind,
        priority=new.priority,
        max_attempts=new.max_attempts,
        timeout_seconds=new.timeout_seconds,
        available_at=new.available_at,
        run_key=new.run_key,
        idempotency_key=new.idempotency_key,
        dedupe_key=new.dedupe_key,
        trace_id=new.trace_id,
        headers=json_text(headers) if headers else None,
        metadata=json_text(new.metadata) if new.metadata else None,
    )


@router.get("")
def list_jobs(
    connection: Session,
    *,
    status: State | None = None,
    queue_name: str | None = None,
    name: str | None = None,
    dedupe_key: str | None = None,
    run_key: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=MOST_OFFSET)] = 0,
    cursor: str | None = None,
    include_total: bool = False,
) -> JobPage:
    """Jobs without their payload, newest first. Page with `cursor`; `offset` reads, and leaves out, what is before."""
    wanted = Filter(queue_name, status, name, dedupe_key, run_key)
    page = operations.list_jobs(connection, wanted, limit=limit + offset, before=cursor)
    total = None
    if include_total and name is None and dedupe_key is None and run_key is None:
        total = _total(connection, status, queue_name)
    return JobPage(
        items=[JobItem.of(job) for job in page.jobs[offset:]],
        total=total,
        limit=limit,
        offset=offset,
        next_cursor=page.next_before,
    )


@router.get("/{job_id}", response_model=JobBody)
def read_job(job_id: UUID, connection: Session) -> Response:
    """A job with its payload."""
    job = operations.show(connection, str(job_id))
    texts = {"payload": job.payload, "headers": job.headers or "{}", "metadata": job.metadata or "{}"}
    return answer(json_answer(body_of(job), texts | {"result": job.result}))


@router.get("/{job_id}/attempts", response_model=list[AttemptBody])
def read_attempts(job_id: UUID, connection: Session) -> Response:
    """The runs of a job that have ended."""
    found = operations.attempts(connection, str(job_id))
    texts = [json_answer(AttemptBody.of(job_id, attempt), {"result": attempt.result}) for attempt in found]
    return answer(f"[{','.join(texts)}]")


@router.post("/{job_id}/replay", status_code=201)
def replay_job(job_id: UUID, connection: Session, request: ReplayRequest | None = None) -> Replayed:
    """A new job like one that has ended, with its idempotency key for the receiver."""
    made = job_actions.replay(connection, str(job_id), force=bool(request and request.force))
    job = operations.show(connection, made)
    return Replayed(new_job_id=UUID(made), source_job_id=job_id, status=job.state, replayed_at=job.created_at)


@router.post("/{job_id}/cancel")
def cancel_job(job_id: UUID, connection: Session) -> Cancelled:
    """Cancels a job that waits; one that runs is told to end."""
    done = job_actions.cancel(connection, str(job_id))
    return Cancelled(job_id=job_id, status=done.state, cancelled_at=datetime.now(UTC))


@router.post("/replay")
def replay_jobs(wanted: JobFilter, connection: Session) -> Bulk:
    """Replays dead or cancelled jobs of a queue, at most `limit`."""
    return _bulk(wanted, job_actions.replay_many(connection, _filter(wanted, "dead_letter"), max_jobs=wanted.limit))


@router.post("/cancel")
def cancel_jobs(wanted: JobFilter, connection: Session) -> Bulk:
    """Cancels jobs of a queue that wait or run, at most `limit`."""
    return _bulk(wanted, job_actions.cancel_many(connection, _filter(wanted, "pending"), max_jobs=wanted.limit))


def _filter(wanted: JobFilter, state: State) -> Filter:
    if wanted.queue_name is None:
        raise Problem(422, "validation_error", "Name the queue: queue_name.")
    return Filter(wanted.queue_name, wanted.status or state, wanted.name, wanted.dedupe_key, wanted.run_key)


def _bulk(wanted: JobFilter, number: int) -> Bulk:
    return Bulk(jobs=number, more=number >= wanted.limit)


def _total(connection: Connection, status: State | None, queue: str | None) -> int | None:
    """Of what is not a log: what has ended is not counted."""
    column = {"pending": "pending", "leased": "leased", "dead_letter": "dead"}.get(status or "")
    return sum(getattr(each, column) for each in job_queues.stats(connection, queue)) if column else None
