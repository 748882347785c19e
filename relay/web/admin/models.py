"""What goes over the wire: the names are those of PgRelay's admin API, which its users were promised."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from relay.operations.job_queues import Queue, Worker
from relay.operations.jobs import Attempt, Job, State, Summary

Kind = Literal["http", "handler", "dramatiq", "celery"]
_KINDS: dict[Kind, str] = {"handler": "python", "http": "http", "dramatiq": "dramatiq", "celery": "celery"}
_KINDS_THERE: dict[str, Kind] = {ours: there for there, ours in _KINDS.items()}
ALIVE_SECONDS = 60
Key = Annotated[str, Field(min_length=1, max_length=300)]


class NewJobBody(BaseModel):
    """A job to enqueue. `payload` of an HTTP job: `url`, `method`, `headers`, and `json`, `text` or `body_base64`."""

    model_config = ConfigDict(extra="forbid")

    queue_name: Annotated[str, Field(min_length=1, max_length=95)] = "default"
    kind: Kind
    name: Annotated[str, Field(min_length=1, max_length=200)]
    payload: dict[str, Any] = {}
    headers: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    max_attempts: Annotated[int, Field(ge=1, le=1000)] = 10
    timeout_seconds: Annotated[int, Field(ge=1, le=604_800)] = 30
    available_at: AwareDatetime | None = None
    idempotency_key: Key | None = None
    dedupe_key: Key | None = None
    run_key: Key | None = None
    trace_id: Annotated[str, Field(max_length=512)] | None = None

    @property
    def our_kind(self) -> str:
        return _KINDS[self.kind]


class EnqueuedBody(BaseModel):
    job_id: UUID
    created: bool
    """False: its idempotency key was in use, and this is the first job with it."""
    queue_name: str
    status: State
    idempotency_key: str | None


class JobItem(BaseModel):
    """A job without what can be large."""

    id: UUID
    queue_name: str
    kind: Kind
    name: str
    status: State
    priority: int
    max_attempts: int
    attempt_count: int
    available_at: datetime | None
    idempotency_key: str | None
    dedupe_key: str | None
    run_key: str | None
    last_error_type: str | None
    replayed_as_job_id: UUID | None
    trace_id: str | None
    created_at: datetime
    completed_at: datetime | None

    @classmethod
    def fields_of(cls, job: Summary) -> dict[str, Any]:
        return {
            "id": job.job,
            "queue_name": job.queue,
            "kind": _KINDS_THERE[job.kind],
            "name": job.name,
            "status": job.state,
            "priority": job.priority,
            "max_attempts": job.max_attempts,
            "attempt_count": job.attempts,
            "available_at": job.available_at or job.created_at,
            "idempotency_key": job.idempotency_key,
            "dedupe_key": job.dedupe_key,
            "run_key": job.run_key,
            "last_error_type": job.code,
            "replayed_as_job_id": job.replayed_as,
            "trace_id": job.trace_id,
            "created_at": job.created_at,
            "completed_at": job.ended_at,
        }

    @classmethod
    def of(cls, job: Summary) -> "JobItem":
        return cls(**cls.fields_of(job))


class JobPage(BaseModel):
    items: list[JobItem]
    total: int | None
    """Only with `include_total`, and where it can be told without counting a log."""
    limit: int
    offset: int
    next_cursor: str | None
    """Give it as `cursor`: the jobs below. Null: there are no more."""


class JobBody(JobItem):
    """Everything that is kept of a job, with its payload. Secrets in errors and answers are masked."""

    timeout_seconds: int
    payload: Any
    headers: dict[str, Any]
    metadata: dict[str, Any]
    locked_by: str | None
    """The worker that runs it: its number, host and process."""
    locked_at: datetime | None
    cancel_requested: bool
    last_error_message: str | None
    last_response_status: int | None
    result: Any


class AttemptBody(BaseModel):
    job_id: UUID
    attempt_number: int
    worker_id: str
    status: str
    """succeeded, failed, timeout, lease_expired or cancelled."""
    started_at: datetime
    finished_at: datetime
    duration_ms: int
    error_type: str | None
    error_message: str | None
    response_status: int | None
    response_body_preview: str | None
    result: Any

    @classmethod
    def of(cls, job_id: UUID, attempt: Attempt) -> "AttemptBody":
        """Without its result, which PostgreSQL has as JSON."""
        return cls(
            job_id=job_id,
            attempt_number=attempt.attempt,
            worker_id=str(attempt.worker_id),
            status=attempt.status,
            started_at=attempt.started_at,
            finished_at=attempt.ended_at,
            duration_ms=attempt.ms,
            error_type=attempt.code,
            error_message=attempt.error,
            response_status=attempt.response_status,
            response_body_preview=attempt.preview,
            result=None,
        )


class ReplayRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    force: bool = False
    """Also a job that has succeeded."""


class Replayed(BaseModel):
    new_job_id: UUID
    source_job_id: UUID
    status: State
    replayed_at: datetime


class Cancelled(BaseModel):
    job_id: UUID
    status: State
    """`cancelled`, or `leased` while a worker that was told still runs it."""
    cancelled_at: datetime


class JobFilter(BaseModel):
    """Which jobs; what is left out is any."""

    model_config = ConfigDict(extra="forbid")

    queue_name: str | None = None
    status: State | None = None
    name: str | None = None
    dedupe_key: str | None = None
    run_key: str | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000


class Bulk(BaseModel):
    jobs: int
    """That were replayed or cancelled."""
    more: bool
    """Whether there may be more: call again."""


class QueueSettings(BaseModel):
    """What is left out stays as it is; null takes a limit away."""

    model_config = ConfigDict(extra="forbid")

    paused: bool | None = None
    concurrency_limit: Annotated[int, Field(ge=1)] | None = None
    key_limit: Annotated[int, Field(ge=1)] | None = None
    rate: Annotated[float, Field(gt=0)] | None = None
    burst: Annotated[float, Field(ge=1)] | None = None
    fair: bool | None = None
    keep_succeeded: bool | None = None
    retention_hours: Annotated[int, Field(ge=0)] | None = None
    dead_retention_hours: Annotated[int, Field(ge=0)] | None = None
    max_payload_bytes: Annotated[int, Field(ge=1, le=268_435_456)] | None = None


class QueueBody(BaseModel):
    name: str
    paused: bool
    concurrency_limit: int | None
    key_limit: int | None
    rate: float | None
    burst: float | None
    fair: bool
    keep_succeeded: bool
    retention_hours: int
    dead_retention_hours: int
    max_payload_bytes: int
    created_at: datetime
    invalid_reason: str | None
    """Why a scheduler cannot run its configuration."""

    @classmethod
    def of(cls, queue: Queue) -> "QueueBody":
        fields = {name: getattr(queue, name) for name in cls.model_fields if name != "name"}
        return cls(name=queue.queue, **fields)


class QueueDepth(BaseModel):
    queue_name: str
    status: str
    count: int


class Stats(BaseModel):
    counts: dict[str, int]
    """By status. What has ended is not counted: a dashboard reads the metrics of outcomes."""
    queue_depth: list[QueueDepth]
    oldest_pending_age_seconds: float | None
    approximate: bool
    """Ids are counted, and jobs that were rolled back have one."""


class WorkerBody(BaseModel):
    worker_id: str
    queues: list[str]
    hostname: str
    pid: int
    slots: int
    started_at: datetime
    last_heartbeat_at: datetime
    stopping: bool
    alive: bool
    """Whether it gave a sign of life within a minute."""
    leased: int
    """Jobs that it has."""

    @classmethod
    def of(cls, worker: Worker) -> "WorkerBody":
        return cls(
            worker_id=str(worker.worker_id),
            queues=list(worker.queues),
            hostname=worker.host,
            pid=worker.pid,
            slots=worker.slots,
            started_at=worker.started_at,
            last_heartbeat_at=worker.seen_at,
            stopping=worker.stopping,
            alive=worker.silent_seconds < ALIVE_SECONDS,
            leased=worker.leased,
        )


def body_of(job: Job) -> JobBody:
    """Without what PostgreSQL has as JSON."""
    where = None if job.worker_id is None else f"{job.worker_id} ({job.worker_host}, pid {job.worker_pid})"
    return JobBody(
        **JobItem.fields_of(job),
        timeout_seconds=job.timeout_seconds,
        payload=None,
        headers={},
        metadata={},
        locked_by=where,
        locked_at=job.claimed_at,
        cancel_requested=job.cancel_requested,
        last_error_message=job.error,
        last_response_status=job.response_status,
        result=None,
    )
