"""Jobs that run where they are enqueued, and what follows them."""

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from relay.errors import BadValue
from relay.jobs.context import Context
from relay.jobs.errors import HandlerError, UnknownReference
from relay.jobs.handlers import AnyJob
from relay.jobs.models import BatchProgress
from relay.jobs.registry import handler
from relay.jobs.results import result_text
from relay.jobs.sending import Columns, NewJob, substitutes
from relay.jobs.testing import blocking
from relay.jobs.testing.recorder import Recorded, Recorder

_JSON = ("headers", "metadata", "options")


@contextmanager
def inline() -> Iterator[Recorder]:
    """Runs each job when it is enqueued, whatever its delay, and its exceptions are raised there.

    Arguments go through their JSON. Requests and tasks of other systems are kept only, and so nothing follows them.
    The connection is not touched.
    """
    recorder = _Inline()
    substitutes.append(recorder)
    try:
        yield recorder
    finally:
        substitutes.remove(recorder)


class _Run(NamedTuple):
    job: AnyJob
    payload: str
    context: Context


_Work = Generator[_Run, Any, None]
"""Yields what is to be run, and is sent what that returns, or thrown what it raises: the same for both kinds of
calls."""


@dataclass(slots=True)
class _Members:
    """What became of the jobs of a batch."""

    unfinished: int = 0
    succeeded: int = 0
    failed: int = 0
    kept_only: str | None = None
    """The name of one that does not run here."""


class _Inline(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self._ended: dict[str, bool] = {}
        """The jobs that have ended, and whether they have succeeded."""
        self._results: dict[str, Any] = {}
        self._members: dict[int, _Members] = {}

    def send(self, jobs: Sequence[NewJob]) -> list[str]:
        ids: list[str] = []
        _drive(self._all(jobs, ids))
        return ids

    async def send_async(self, jobs: Sequence[NewJob]) -> list[str]:
        ids: list[str] = []
        await _drive_async(self._all(jobs, ids))
        return ids

    def batch_create(self, on_success: str | None, on_complete: str | None) -> int:
        number = super().batch_create(on_success, on_complete)
        self._members[number] = _Members()
        return number

    def batch_close(self, number: int) -> None:
        _drive(self._close(number))

    async def batch_close_async(self, number: int) -> None:
        await _drive_async(self._close(number))

    def batch_get(self, number: int) -> BatchProgress | None:
        if (found := self.batches.get(number)) is None:
            return None
        members = self._members[number]
        counts = (members.unfinished, members.succeeded, members.failed)
        return BatchProgress(found.closed, *counts, found.created_at, found.ended_at)

    # The work ------------------------------------------------------------------------------------------------------

    def _all(self, jobs: Sequence[NewJob], ids: list[str]) -> _Work:
        for job in jobs:
            runs = job.kind == "python" and self._may_run(job)
            kept = self._keep(job)
            ids.append(kept.id)
            members = self._members.get(kept.member("batch"), _Members())
            members.unfinished += 1
            if job.kind != "python":
                members.kept_only = job.name
            elif runs:
                yield from self._run(job, kept, members)
            else:
                yield from self._end(kept, members, succeeded=False)

    def _run(self, job: NewJob, kept: Recorded, members: _Members) -> _Work:
        context = _context(job, kept)
        context.results = {each: self._results[each] for each in kept.member("after") or [] if each in self._results}
        try:
            result = yield _Run(_handler(job), job.payload, context)
        except Exception:
            yield from self._end(kept, members, succeeded=False)
            raise
        with suppress(BadValue):  # what cannot be kept is no failure
            text = context.completed_with if context.completed else result_text(result)
            self._results[kept.id] = json.loads(text or "null")
        yield from self._end(kept, members, succeeded=True)

    def _end(self, kept: Recorded, members: _Members, *, succeeded: bool) -> _Work:
        self._ended[kept.id] = succeeded
        if succeeded:
            yield from self._enqueue(kept.member("then") or [])
        members.unfinished -= 1
        members.succeeded += succeeded
        members.failed += not succeeded
        number = kept.member("batch")
        if number in self.batches and self.batches[number].closed:
            yield from self._end_batch(number)

    def _close(self, number: int) -> _Work:
        found = self._batch(number)
        if (name := self._members[number].kept_only) is not None:
            raise HandlerError(f"batch {number} has job {name!r}, which inline() does not run: it cannot know its end")
        if not found.closed:
            found.closed = True
            yield from self._end_batch(number)

    def _end_batch(self, number: int) -> _Work:
        """If nothing of it is left."""
        found, members = self.batches[number], self._members[number]
        if members.unfinished == 0:
            found.ended_at = datetime.now(UTC)
            yield from self._enqueue((found.on_success if members.failed == 0 else []) + found.on_complete)

    def _enqueue(self, templates: Sequence[Mapping[str, Any]]) -> _Work:
        yield from self._all([_job(each) for each in templates], [])

    def _may_run(self, job: NewJob) -> bool:
        """Whether those that it needs have ended well, or at all if it says so. Otherwise it is cancelled."""
        options = json.loads(job.value("options") or "{}")
        needed = options.get("after", [])
        if unknown := [each for each in needed if each not in self._ended]:
            raise UnknownReference(
                f"job {job.name!r} needs job {unknown[0]}, and inline() cannot know its end: it has not ended here",
                sqlstate=None,
            )
        return options.get("run_if") == "ended" or all(self._ended[each] for each in needed)


def _drive(work: _Work) -> None:
    try:
        step = next(work)
        while True:
            try:
                result = blocking.run(*step)
            except Exception as error:  # noqa: BLE001  the work decides what becomes of it
                step = work.throw(error)
            else:
                step = work.send(result)
    except StopIteration:
        return


async def _drive_async(work: _Work) -> None:
    try:
        step = next(work)
        while True:
            try:
                result = await blocking.run_async(*step)
            except Exception as error:  # noqa: BLE001
                step = work.throw(error)
            else:
                step = work.send(result)
    except StopIteration:
        return


def _job(template: Mapping[str, Any]) -> NewJob:
    """As PostgreSQL reads it; when it is due, and other numbers, mean nothing here."""
    columns: Columns = {
        name: ("jsonb", json.dumps(value)) if name in _JSON else ("text", value)
        for name, value in template.items()
        if name not in ("queue", "kind", "name", "payload")
    }
    return NewJob(template["queue"], template["kind"], template["name"], json.dumps(template["payload"]), columns)


def _handler(job: NewJob) -> AnyJob:
    found = handler(job.name)
    if found is None:
        raise HandlerError(f"job {job.name!r}: this process has no handler of that name; import its module")
    return found


def _context(job: NewJob, kept: Recorded) -> Context:
    headers, metadata = (json.loads(job.value(column) or "{}") for column in ("headers", "metadata"))
    return Context(
        id=kept.id,
        max_attempts=job.value("max_attempts") or 10,
        queue=job.queue,
        name=job.name,
        trace_id=job.value("trace_id"),
        headers=headers,
        metadata=metadata,
    )
