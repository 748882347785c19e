"""Jobs: enqueue, list and show them. `job_actions.py` cancels and replays them, `job_queues.py` has their queues.

A job is named by its public id, a UUID. States: pending, leased, succeeded, dead_letter, cancelled.
"""

import heapq
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Literal, get_args

from relay.errors import ConfigError
from relay.masking import mask
from relay.operations.base import LARGEST_ID, Connection, rows, transaction
from relay.operations.job_errors import NoSuchJob, refusals

State = Literal["pending", "leased", "succeeded", "dead_letter", "cancelled"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True, slots=True)
class NewJob:
    """What to enqueue. JSON is text, so that no number loses a digit."""

    queue: str
    name: str
    payload: str = "{}"
    kind: str = "python"
    """python, http, dramatiq or celery."""
    priority: int = 0
    max_attempts: int = 10
    timeout_seconds: int = 30
    available_at: datetime | None = None
    run_key: str | None = None
    idempotency_key: str | None = None
    dedupe_key: str | None = None
    trace_id: str | None = None
    headers: str | None = None
    metadata: str | None = None
    options: str | None = None
    on_conflict: str = "error"
    """If the idempotency key belongs to another job: error or ignore."""
    dedupe: str | None = None
    """With a dedupe_key: waiting or unfinished."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The job that was enqueued, or the one that had its key."""

    id: int
    """Within its queue."""
    job: str
    is_new: bool
    """False: one of its keys was in use, and nothing was written."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A job without what can be large."""

    id: int
    """Within its queue."""
    job: str
    """The public id, a UUID."""
    queue: str
    state: State
    name: str
    kind: str
    priority: int
    attempts: int
    """That have ended."""
    max_attempts: int
    created_at: datetime
    available_at: datetime | None
    """When it may run; None if it does not wait."""
    ended_at: datetime | None
    """None if it has not ended, or if its queue keeps no history."""
    code: str | None
    """Of its last attempt, if that failed."""
    run_key: str | None
    dedupe_key: str | None
    idempotency_key: str | None
    trace_id: str | None
    replayed_as: str | None
    """The job that replays this one, if it is dead."""


@dataclass(frozen=True, slots=True)
class Job(Summary):
    """Everything that is kept of a job. JSON is text, as PostgreSQL prints it."""

    timeout_seconds: int
    size: int
    """Bytes as stored."""
    payload: str
    headers: str | None
    metadata: str | None
    options: str | None
    error: str | None
    """Of its last attempt, as the next three. Secrets in it are masked."""
    response_status: int | None
    preview: str | None
    result: str | None
    worker_id: int | None
    """Which runs it."""
    worker_host: str | None
    worker_pid: int | None
    claimed_at: datetime | None
    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class Attempt:
    """A run that has ended."""

    attempt: int
    status: str
    """succeeded, failed, timeout, lease_expired or cancelled."""
    started_at: datetime
    ended_at: datetime
    ms: int
    code: str | None
    error: str | None
    """Secrets in it are masked."""
    response_status: int | None
    preview: str | None
    result: str | None
    worker_id: int


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs; None: any."""

    queue: str | None = None
    state: State | None = None
    name: str | None = None
    dedupe_key: str | None = None
    run_key: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Jobs, newest first."""

    jobs: list[Summary]
    next_before: str | None
    """There may be more below this cursor, also if the page is short: a filter looks so far at a time."""


def enqueue(connection: Connection, new: NewJob) -> Enqueued:
    """Enqueues a job in a transaction of its own. Raises NoSuchJob for an unknown queue, KeyInUse, ConfigError."""
    given = {name: getattr(new, name) for name in NewJob.__slots__}
    with refusals(), transaction(connection):
        [row] = rows(connection, "job_enqueue", **given)
        return Enqueued(**row)


def list_jobs(connection: Connection, wanted: Filter, *, limit: int = 100, before: str | None = None) -> Page:
    """At most `limit` below the cursor `before`, of one queue or of all. Raises NoSuchJob, ConfigError."""
    with refusals():
        queues = [wanted.queue] if wanted.queue else [row["name"] for row in rows(connection, "job_queue_names")]
        reached = dict.fromkeys(queues) | _reached(before)
        found = {queue: _look(connection, wanted, queue, reached[queue], limit) for queue in queues}
    # Each queue stays in the order of its ids, which the cursor needs.
    merged = heapq.merge(*(looked.rows for looked in found.values()), key=lambda row: row.created_at, reverse=True)
    shown = list(islice(merged, limit))
    last = {queue: looked.last([row for row in shown if row.queue == queue]) for queue, looked in found.items()}
    rest = ",".join(f"{queue}:{before_id}" for queue, before_id in last.items())
    return Page(shown, rest if any(before_id > 1 for before_id in last.values()) else None)


def show(connection: Connection, job: str) -> Job:
    """Raises NoSuchJob."""
    with refusals():
        for row in rows(connection, "job_show", job=job):
            return Job(**row | {name: row[name] and mask(row[name]) for name in ("error", "preview")})
    raise NoSuchJob(f"job {job} does not exist: it may have been removed by retention; see relay jobs list")


def attempts(connection: Connection, job: str) -> list[Attempt]:
    """The runs of a job that have ended, in their order. Raises NoSuchJob."""
    with refusals():
        found = rows(connection, "job_attempts", job=job)
    if not found:
        show(connection, job)
    return [Attempt(**row | {name: row[name] and mask(row[name]) for name in ("error", "preview")}) for row in found]


@dataclass(frozen=True, slots=True)
class _Look:
    """A look at one queue, and where it ended."""

    rows: list[Summary]
    before_id: int | None
    """Where it began."""
    reached: int | None
    """Where it ended; None: at the end."""

    def last(self, shown: list[Summary]) -> int:
        """Below which the next page begins; 1: there is no more."""
        if len(shown) < len(self.rows):
            return shown[-1].id if shown else self.before_id or LARGEST_ID
        return self.reached or 1


def _look(connection: Connection, wanted: Filter, queue: str, before_id: int | None, limit: int) -> _Look:
    given: dict[str, Any] = {name: getattr(wanted, name) for name in ("state", "name", "dedupe_key", "run_key")}
    found = rows(connection, "job_list", queue=queue, before_id=before_id, max_rows=limit, **given)
    whole = [Summary(**row) for row in found if row["state"]]
    ended_early = len(whole) == limit or len(found) > len(whole)
    return _Look(whole, before_id, found[-1]["id"] if ended_early else None)


def _reached(before: str | None) -> dict[str, int | None]:
    """The cursor of a page: `queue:id`, separated by commas."""
    try:
        parts = [part.rpartition(":") for part in before.split(",")] if before else []
        return {queue: max(1, min(int(number), LARGEST_ID)) for queue, _, number in parts}
    except ValueError:
        raise ConfigError(f"{before!r} is not the cursor of a page: give the one that the page before said") from None
