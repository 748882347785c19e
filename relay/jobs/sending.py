"""How a job that is complete goes to the database: one statement, in the transaction of the caller's connection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from relay.database.callers import Arguments, Call, Value, call, call_async, execute, execute_async
from relay.database.callers.statement import Statement, sent, statement_of
from relay.jobs.errors import job_errors
from relay.jobs.models import BatchProgress

Kind = Literal["python", "http", "dramatiq", "celery"]
Columns = Mapping[str, tuple[str, Value]]


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that was checked."""

    queue: str
    kind: Kind
    name: str
    payload: str
    """JSON."""
    columns: Columns
    """The other arguments of `tide.job_enqueue`, each with its type; what is missing has its default there."""

    def value(self, column: str) -> Any:
        return self.columns[column][1] if column in self.columns else None


DEFAULTS: Mapping[str, Value] = {"priority": 0, "max_attempts": 10, "timeout_seconds": 30}
"""Those of `tide.job_enqueue` that handlers have too. They are not sent: a parameter costs both sides more."""


class Substitute(Protocol):
    """What takes jobs instead of the database, in a test."""

    def send(self, jobs: Sequence[NewJob]) -> list[str]: ...

    async def send_async(self, jobs: Sequence[NewJob]) -> list[str]: ...

    def batch_create(self, on_success: str | None, on_complete: str | None) -> int: ...

    def batch_close(self, number: int) -> None: ...

    async def batch_close_async(self, number: int) -> None: ...

    def batch_get(self, number: int) -> BatchProgress | None: ...


substitutes: list[Substitute] = []
"""The last one is in force. For the whole process: the application under test may enqueue in any thread."""


def send(connection: Any, job: NewJob) -> str:
    """Returns the UUID of the job, or of that which had its key."""
    if substitutes:
        return substitutes[-1].send([job])[0]
    with job_errors():
        [(uuid,)] = execute(connection, statement_of_one(job))
    return str(uuid)


async def send_async(connection: Any, job: NewJob) -> str:
    if substitutes:
        return (await substitutes[-1].send_async([job]))[0]
    with job_errors():
        [(uuid,)] = await execute_async(connection, statement_of_one(job))
    return str(uuid)


def send_many(connection: Any, jobs: Sequence[NewJob]) -> list[str]:
    """Jobs of one queue and kind, which differ only in name, payload, run key and idempotency key."""
    if substitutes:
        return substitutes[-1].send(jobs)
    if not jobs:
        return []
    with job_errors():
        return [str(uuid) for (uuid,) in call(connection, "job_uuid", _many(jobs))]


async def send_many_async(connection: Any, jobs: Sequence[NewJob]) -> list[str]:
    if substitutes:
        return await substitutes[-1].send_async(jobs)
    if not jobs:
        return []
    with job_errors():
        return [str(uuid) for (uuid,) in await call_async(connection, "job_uuid", _many(jobs))]


def enqueue_call(job: NewJob) -> Call:
    """The call that enqueues it and returns its id, or that of the job which had its key."""
    own: Arguments = {
        "queue": ("text", job.queue),
        "name": ("text", job.name),
        "payload": ("jsonb", job.payload),
        **_not_default(job.columns),
    }
    if job.kind != "python":
        own = {**own, "kind": ("text", job.kind)}
    return Call("job_enqueue", own)


def _not_default(columns: Columns) -> Columns:
    return {name: given for name, given in columns.items() if name not in DEFAULTS or DEFAULTS[name] != given[1]}


def statement_of_one(job: NewJob) -> Statement:
    """What enqueues it and returns its UUID."""
    if job.kind != "python" or _not_default(job.columns):
        return _statement(job)
    return Statement(_PLAIN, (sent("queue", job.queue), sent("name", job.name), sent("payload", job.payload)))


def _statement(job: NewJob) -> Statement:
    return statement_of("job_uuid", {"queue": ("text", job.queue), "id": ("bigint", enqueue_call(job))})


_PLAIN = statement_of(
    "job_enqueue_plain", enqueue_call(NewJob("", "python", "", "{}", {})).arguments, one_value=True
).texts
"""Most jobs are no more than their arguments, and have one statement."""


def _many(jobs: Sequence[NewJob]) -> Arguments:
    first = jobs[0]
    names = {job.name for job in jobs}
    all_of_them: dict[str, tuple[str, Value | Call]] = {
        "queue": ("text", first.queue),
        "names": ("text[]", list(names) if len(names) == 1 else [job.name for job in jobs]),
        "payloads": ("jsonb[]", [job.payload for job in jobs]),
        "kind": ("text", first.kind),
        **_not_default(first.columns),
    }
    for column in ("run_key", "idempotency_key"):
        all_of_them.pop(column, None)
        if any(column in job.columns for job in jobs):
            all_of_them[f"{column}s"] = ("text[]", [job.value(column) for job in jobs])
    return {"queue": ("text", first.queue), "ids": ("bigint[]", Call("job_enqueue_many", all_of_them))}
