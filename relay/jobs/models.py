"""The values on the path of a job: what a claim gives a worker process, what became of a run, how far a batch is."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from relay.database.values import LATEST
from relay.jobs.ids import job_uuid

Outcome = Literal["s", "r", "d", "c", "b"]
"""Succeeded; failed, to be retried; dead; cancelled; handed back, which is no attempt."""


EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""PostgreSQL's: it counts microseconds from there."""


class Claimed(NamedTuple):
    """One job of a lease, to be run once: the queue, and a row of `tide.job_claim` as it came. What few ask for is made
    when they do."""

    queue: str
    outbox_id: int
    """The queue's number."""
    lease_id: int
    id: int
    attempt: int
    """Of this run; the first is 1."""
    kind: str
    name: str
    priority: int
    timeout_seconds: int
    max_attempts: int
    created_us: int
    """When it was enqueued, and since when it could run: microseconds since `EPOCH`."""
    due_us: int
    payload: str
    """JSON text, as PostgreSQL prints it."""
    headers: str | None
    """A JSON object as text; so are the next two."""
    metadata: str | None
    options: str | None
    idempotency_key: str | None
    run_key: str | None
    trace_id: str | None
    results: str | None = None
    """What the jobs returned that it waited for, by their UUIDs: a JSON object as text. Asked for after the claim."""

    @property
    def uuid(self) -> str:
        """The public id."""
        return job_uuid(self.outbox_id, self.id)

    @property
    def created_at(self) -> datetime:
        try:
            return EPOCH + timedelta(microseconds=self.created_us)
        except OverflowError:
            return LATEST


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a batch is."""

    closed: bool
    """Whether it takes no more jobs."""
    unfinished: int
    succeeded: int
    failed: int
    """Those that are dead or cancelled."""
    created_at: datetime
    ended_at: datetime | None
    """When it was closed and all its jobs had ended: then its callbacks were enqueued."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The result of one run. Its texts are short, storable in PostgreSQL, and hold no known secret."""

    outcome: Outcome
    code: str | None = None
    """A short stable word for metrics and listings, such as `timeout` or `http_503`; None for what succeeded."""
    error: str | None = None
    """At most 2,000 characters."""
    response_status: int | None = None
    """Of HTTP, where a receiver answered."""
    preview: str | None = None
    """The beginning of its answer."""
    result: str | None = None
    """JSON text."""
    retry_seconds: float | None = None
    """When to run it again, where the receiver or the handler said so; else the job's backoff decides."""
