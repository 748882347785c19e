"""Jobs that are kept, or run at once, instead of being sent."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from relay.jobs.context import Context
from relay.jobs.errors import HandlerError
from relay.jobs.handlers import AnyJob
from relay.jobs.registry import handler
from relay.jobs.sending import NewJob, substitutes
from relay.jobs.testing import blocking
from relay.outbox.json_values import json_text


@dataclass(frozen=True, slots=True)
class Recorded:
    """A job that was enqueued."""

    id: str
    queue: str
    kind: str
    name: str
    payload: Any
    """As it was read from its JSON."""
    options: Mapping[str, Any]
    """The other columns that it would have, such as `priority`, `available_at` and `idempotency_key`."""


class Recorder:
    """What was enqueued since the beginning of the context, in any thread."""

    def __init__(self) -> None:
        self.jobs: list[Recorded] = []

    def of(self, job: AnyJob | str) -> list[Recorded]:
        """The jobs of a handler, or of a name."""
        name = job if isinstance(job, str) else job.name
        return [each for each in self.jobs if each.name == name]

    def assert_enqueued(self, job: AnyJob | str, /, times: int | None = None, **arguments: Any) -> list[Recorded]:
        """Fails unless there are jobs with these arguments, and as many as `times` says; returns them."""
        wanted = json.loads(json_text(arguments, "arguments"))
        all_of_it = self.of(job)
        found = [each for each in all_of_it if _has(each.payload, wanted)]
        if len(found) == times or (found and times is None):
            return found
        expected = "one at least" if times is None else times
        shown = "\n".join(f"  {each.name} {each.payload}" for each in all_of_it or self.jobs) or "  none"
        raise AssertionError(f"enqueued with {wanted}: {len(found)}, and not {expected}; there are:\n{shown}")

    def assert_not_enqueued(self, job: AnyJob | str, /, **arguments: Any) -> None:
        self.assert_enqueued(job, times=0, **arguments)

    def clear(self) -> None:
        self.jobs.clear()

    # What takes the place of the database ------------------------------------------------------------------------

    def send(self, jobs: Sequence[NewJob]) -> list[str]:
        return [self._keep(job).id for job in jobs]

    async def send_async(self, jobs: Sequence[NewJob]) -> list[str]:
        return self.send(jobs)

    def _keep(self, job: NewJob) -> Recorded:
        options = {column: value for column, (_, value) in job.columns.items()}
        kept = Recorded(str(uuid4()), job.queue, job.kind, job.name, json.loads(job.payload), options)
        self.jobs.append(kept)
        return kept


class _Inline(Recorder):
    """Runs those that have a handler; an exception of it is raised where it was enqueued."""

    def send(self, jobs: Sequence[NewJob]) -> list[str]:
        ids = []
        for job in jobs:
            kept = self._keep(job)
            if job.kind == "python":
                blocking.run(_handler(job), job.payload, _context(job, kept))
            ids.append(kept.id)
        return ids

    async def send_async(self, jobs: Sequence[NewJob]) -> list[str]:
        ids = []
        for job in jobs:
            kept = self._keep(job)
            if job.kind == "python":
                await blocking.run_async(_handler(job), job.payload, _context(job, kept))
            ids.append(kept.id)
        return ids


@contextmanager
def recorded() -> Iterator[Recorder]:
    """Keeps what the whole process enqueues. The connection is not touched, and may be None."""
    recorder = Recorder()
    substitutes.append(recorder)
    try:
        yield recorder
    finally:
        substitutes.remove(recorder)


@contextmanager
def inline() -> Iterator[Recorder]:
    """Runs each job when it is enqueued, whatever its delay, and its exceptions are raised there.

    Arguments go through their JSON. Requests and tasks of other systems are kept only. The connection is not touched.
    """
    recorder = _Inline()
    substitutes.append(recorder)
    try:
        yield recorder
    finally:
        substitutes.remove(recorder)


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


def _has(payload: Any, wanted: Mapping[str, Any]) -> bool:
    return all(name in payload and payload[name] == value for name, value in wanted.items())
