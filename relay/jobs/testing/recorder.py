"""Jobs that are kept instead of being sent."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from relay.jobs.errors import UnknownReference
from relay.jobs.handlers import AnyJob
from relay.jobs.models import BatchProgress
from relay.jobs.sending import NewJob, substitutes
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
    """The other columns that it would have, such as `priority`, `available_at` and `idempotency_key`. One of them is
    itself called `options`, and has `then`, `after`, `run_if`, `batch` and `backoff`."""

    def member(self, name: str) -> Any:
        """Of the column `options`: None if it is not there."""
        return self.options.get("options", {}).get(name)


@dataclass(slots=True)
class RecordedBatch:
    """A batch that was made, and the jobs that it would enqueue at its end, as `tide.job_batch_create` takes them."""

    on_success: list[Any]
    on_complete: list[Any]
    closed: bool = False
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None


class Recorder:
    """What was enqueued since the beginning of the context, in any thread."""

    def __init__(self) -> None:
        self.jobs: list[Recorded] = []
        self.batches: dict[int, RecordedBatch] = {}
        """By their numbers."""

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
        """Of jobs; batches stay, as they may be open."""
        self.jobs.clear()

    # What takes the place of the database ------------------------------------------------------------------------

    def send(self, jobs: Sequence[NewJob]) -> list[str]:
        return [self._keep(job).id for job in jobs]

    async def send_async(self, jobs: Sequence[NewJob]) -> list[str]:
        return self.send(jobs)

    def batch_create(self, on_success: str | None, on_complete: str | None) -> int:
        number = len(self.batches) + 1
        self.batches[number] = RecordedBatch(json.loads(on_success or "[]"), json.loads(on_complete or "[]"))
        return number

    def batch_close(self, number: int) -> None:
        self._batch(number).closed = True

    async def batch_close_async(self, number: int) -> None:
        self.batch_close(number)

    def batch_get(self, number: int) -> BatchProgress | None:
        """None of its jobs has run."""
        if (found := self.batches.get(number)) is None:
            return None
        jobs = sum(each.member("batch") == number for each in self.jobs)
        return BatchProgress(found.closed, jobs, 0, 0, found.created_at, found.ended_at)

    def _batch(self, number: int) -> "RecordedBatch":
        if number not in self.batches:
            raise UnknownReference(f"batch {number} was not made in this context", sqlstate=None)
        return self.batches[number]

    def _keep(self, job: NewJob) -> Recorded:
        options = {column: _read(*each) for column, each in job.columns.items()}
        kept = Recorded(str(uuid4()), job.queue, job.kind, job.name, json.loads(job.payload), options)
        number = kept.member("batch")
        if number in self.batches and self.batches[number].closed:
            raise UnknownReference(f"job {job.name!r}: batch {number} takes no jobs: it is closed", sqlstate=None)
        self.jobs.append(kept)
        return kept


def _read(kind: str, value: Any) -> Any:
    return json.loads(value) if kind == "jsonb" else value


@contextmanager
def recorded() -> Iterator[Recorder]:
    """Keeps what the whole process enqueues. The connection is not touched, and may be None."""
    recorder = Recorder()
    substitutes.append(recorder)
    try:
        yield recorder
    finally:
        substitutes.remove(recorder)


def _has(payload: Any, wanted: Mapping[str, Any]) -> bool:
    return all(name in payload and payload[name] == value for name, value in wanted.items())
