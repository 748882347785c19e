"""Runs what is due as a worker does: claims, runs, finishes, all on the test's own connection."""

import json
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from relay.database.callers import Call, Value, call, call_async
from relay.jobs.backoff import of_options
from relay.jobs.context import Context
from relay.jobs.ends import failed, succeeded
from relay.jobs.errors import HandlerError, UnknownQueue, job_errors
from relay.jobs.handlers import AnyJob
from relay.jobs.ids import job_uuid
from relay.jobs.models import Ended
from relay.jobs.outcomes import Discard, Retry, Snooze
from relay.jobs.registry import handler, handlers
from relay.jobs.testing import blocking

_WORDS = {"s": "succeeded", "r": "retried", "d": "dead", "b": "snoozed"}
_CLAIM = 100


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of a job."""

    id: str
    queue: str
    name: str
    payload: Any
    attempt: int
    outcome: str
    """succeeded, retried, dead or snoozed."""
    error: str | None
    result: Any


def run_due(connection: Any, *queues: str, raise_errors: bool = True, most: int = 1000) -> list[Ran]:
    """Runs the jobs of Python handlers that are due, and those that they enqueue, until none is.

    Nothing is committed: what it did is rolled back with the test. By default the queues are those of the handlers.
    An exception of a handler is raised, unless `raise_errors` is False: then its job is retried or dead, as it would
    be on a worker. Raises HandlerError for a job of an unknown name, and after `most` runs.
    """
    work = _work(queues, raise_errors=raise_errors, most=most)
    try:
        step = next(work)
        while True:
            with job_errors():
                answer = call(connection, step.function, step.arguments) if isinstance(step, Call) else step.run()
            step = work.send(answer)
    except StopIteration as done:
        ran: list[Ran] = done.value
        return ran


async def run_due_async(connection: Any, *queues: str, raise_errors: bool = True, most: int = 1000) -> list[Ran]:
    """The same, on an asynchronous connection."""
    work = _work(queues, raise_errors=raise_errors, most=most)
    try:
        step = next(work)
        while True:
            if isinstance(step, Call):
                with job_errors():
                    answer: Any = await call_async(connection, step.function, step.arguments)
            else:
                answer = await step.run_async()
            step = work.send(answer)
    except StopIteration as done:
        ran: list[Ran] = done.value
        return ran


class _Claimed(NamedTuple):
    """A row of `tide.job_claim`."""

    lease_id: int
    id: int
    attempt: int
    kind: str | bytes
    name: str
    priority: int
    timeout_seconds: int
    max_attempts: int
    created_at: datetime
    due_at: datetime
    payload: str
    headers: str | None
    metadata: str | None
    options: str | None
    idempotency_key: str | None
    run_key: str | None
    trace_id: str | None


@dataclass(frozen=True, slots=True)
class _Run:
    job: AnyJob
    payload: str
    context: Context

    def run(self) -> "Exception | _Returned":
        try:
            return _Returned(blocking.run(self.job, self.payload, self.context))
        except Exception as error:  # noqa: BLE001  any exception of a handler is its outcome
            return error

    async def run_async(self) -> "Exception | _Returned":
        try:
            return _Returned(await blocking.run_async(self.job, self.payload, self.context))
        except Exception as error:  # noqa: BLE001
            return error


class _Returned(NamedTuple):
    value: Any


def _work(queues: Sequence[str], *, raise_errors: bool, most: int) -> Generator[Call | _Run, Any, list[Ran]]:
    """Yields what is to be called or run, and is sent what that gave: the same for both kinds of connections."""
    names = queues or sorted({each.options["queue"] or "" for each in handlers().values()})
    ran: list[Ran] = []
    [(worker,)] = yield _start(names)
    idle = False
    while not idle:
        idle = True
        for queue in names:
            [(outbox_id, _)] = yield Call("job_of_uuid", {"job": ("uuid", _some_uuid(queue))})
            if outbox_id is None and queue in queues:
                raise UnknownQueue(f"job queue {queue!r} does not exist", sqlstate=None)
            rows = [] if outbox_id is None else (yield _claim(outbox_id, worker))
            jobs = [_Claimed(*row) for row in rows]
            results = yield from _results(jobs)
            for claimed in jobs:
                if claimed.kind in ("p", b"p"):
                    idle = False
                    run = _run(queue, outbox_id, claimed, results.get(claimed.id))
                    ended = _ended(run, (yield run), claimed, raise_errors=raise_errors)
                    yield _finish(worker, claimed, ended)
                    ran.append(_ran(run, claimed, ended))
                    if len(ran) > most:
                        raise HandlerError(f"{most} jobs ran, and there is more: a job that enqueues itself?")
    # Hands back what it has no handler for: requests, and tasks of other systems.
    yield Call("job_worker_stop", {"worker": ("bigint", worker)})
    return ran


def _start(queues: Sequence[str]) -> Call:
    process: dict[str, tuple[str, Value | Call]] = {"host": ("text", "test"), "pid": ("int", os.getpid())}
    return Call("job_worker_start", {**process, "queues": ("text[]", queues), "slots": ("int", 1)})


def _some_uuid(queue: str) -> Call:
    """That of the job 0, which has the queue's number in it."""
    return Call("job_uuid", {"queue": ("text", queue), "id": ("bigint", 0)})


def _claim(outbox_id: int, worker: int) -> Call:
    return Call("job_claim", {"queue": ("int", outbox_id), "worker": ("bigint", worker), "want": ("int", _CLAIM)})


def _results(jobs: Sequence[_Claimed]) -> Generator[Call, Any, dict[int, str]]:
    """What the jobs returned that these have waited for, by their numbers."""
    waited = [job for job in jobs if '"after":' in (job.options or "")]
    if not waited:
        return {}
    arguments = {
        "leases": ("bigint[]", [job.lease_id for job in waited]),
        "ids": ("bigint[]", [job.id for job in waited]),
    }
    rows = yield Call("job_results", arguments)
    return {number: text for _, number, text in rows}


def _run(queue: str, outbox_id: int, claimed: _Claimed, results: str | None) -> _Run:
    job = handler(claimed.name)
    if job is None:
        raise HandlerError(f"job {claimed.name!r} of queue {queue!r}: this process has no handler of that name")
    context = Context(
        id=job_uuid(outbox_id, claimed.id),
        attempt=claimed.attempt,
        max_attempts=claimed.max_attempts,
        queue=queue,
        name=claimed.name,
        trace_id=claimed.trace_id,
        headers=json.loads(claimed.headers or "{}"),
        metadata=json.loads(claimed.metadata or "{}"),
        deadline=datetime.now(UTC) + timedelta(seconds=claimed.timeout_seconds),
        results=json.loads(results or "{}"),
        lease_id=claimed.lease_id,
        number=claimed.id,
    )
    return _Run(job, claimed.payload, context)


def _ended(run: _Run, outcome: Exception | _Returned, claimed: _Claimed, *, raise_errors: bool) -> Ended:
    if isinstance(outcome, _Returned):
        return succeeded(outcome.value)
    if raise_errors and not isinstance(outcome, Retry | Snooze | Discard):
        raise outcome
    return failed(run.job, outcome, claimed.attempt, claimed.max_attempts, of_options(claimed.options))


def _finish(worker: int, claimed: _Claimed, ended: Ended) -> Call:
    columns: dict[str, tuple[str, Value]] = {
        "leases": ("bigint", claimed.lease_id),
        "ids": ("bigint", claimed.id),
        "attempts": ("smallint", claimed.attempt),
        "outcomes": ('"char"', ended.outcome),
        "ms": ("int", 0),
        "codes": ("text", ended.code),
        "errors": ("text", ended.error),
        "results": ("jsonb", ended.result),
        "retry_seconds": ("float8", ended.retry_seconds),
    }
    arrays = {name: (f"{kind}[]", [value]) for name, (kind, value) in columns.items()}
    return Call("job_finish", {"worker": ("bigint", worker), **arrays})


def _ran(run: _Run, claimed: _Claimed, ended: Ended) -> Ran:
    result = json.loads(ended.result) if ended.result else None
    payload = json.loads(claimed.payload)
    context = run.context
    return Ran(
        context.id, context.queue, claimed.name, payload, claimed.attempt, _WORDS[ended.outcome], ended.error, result
    )
