"""Dead letters, which a sink refused permanently or no inbox can hold: list, show, retry, discard and count them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from relay.backends.registry import SOURCES, source_class
from relay.backends.source import PassiveSource
from relay.errors import ConfigError
from relay.masking import mask
from relay.operations.base import Connection, one, rows, transaction
from relay.operations.pipelines import StoredPipeline, require_known, stored


@dataclass(frozen=True, slots=True)
class Summary:
    """A dead letter without what can be large."""

    dead_letter_id: int
    pipeline: str
    message: str
    """`outbox:id` of a message that was published, the event id of one that was received."""
    code: str
    reason: str
    """Secrets in it are masked."""
    attempts: int
    failed_at: datetime
    """The last attempt."""
    retry_requested_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Everything that is kept of a dead letter.

    A forward one has `outbox`, `message_id`, `payload` and `published_at`; a reverse one `inbox`, `event_id`, `subject`
    and `body`.
    """

    dead_letter_id: int
    pipeline: str
    outbox: str | None
    message_id: int | None
    inbox: str | None
    event_id: str | None
    subject: str | None
    key: str | None
    headers: str | None
    """JSON as PostgreSQL prints it, so that no number loses a digit."""
    payload: str | None
    """JSON, as the headers."""
    body: bytes | None
    """As it was received."""
    code: str
    reason: str
    """Secrets in it are masked."""
    attempts: int
    published_at: datetime | None
    first_failed_at: datetime
    failed_at: datetime
    retry_requested_at: datetime | None


@dataclass(frozen=True, slots=True)
class Page:
    """Dead letters in the order of their ids."""

    dead_letters: list[Summary]
    next_after_id: int | None
    """There are more above this id."""


@dataclass(frozen=True, slots=True)
class Retry:
    """What was asked for: the pipelines retry these dead letters after their live messages."""

    pipelines: list[str]
    dead_letters: int
    disabled: list[str]
    """Those of the pipelines that are disabled, and retry nothing until they are enabled."""


@dataclass(frozen=True, slots=True)
class Count:
    """The dead letters of one pipeline with one code."""

    pipeline: str
    code: str
    dead_letters: int
    retrying: int
    most_attempts: int
    oldest_at: datetime
    newest_at: datetime


def list_dead_letters(
    connection: Connection, pipeline: str | None = None, *, code: str | None = None, limit: int = 100, after_id: int = 0
) -> Page:
    """At most `limit` above `after_id`. Raises ConfigError if the pipeline does not exist and has none."""
    page = {"pipeline": pipeline, "code": code, "after_id": after_id, "max_rows": limit + 1}
    found = [Summary(**row | {"reason": mask(row["reason"])}) for row in rows(connection, "dead_letter_list", **page)]
    if not found:
        require_known(connection, pipeline)
    shown = found[:limit]
    return Page(shown, shown[-1].dead_letter_id if len(found) > limit else None)


def show(connection: Connection, dead_letter_id: int) -> DeadLetter:
    """Raises ConfigError if it does not exist (any more)."""
    for found in read_each(connection, [dead_letter_id]):
        return found
    raise ConfigError(
        f"dead letter {dead_letter_id} does not exist: it may have been delivered or discarded; "
        "see relay dead-letter list"
    )


def read_each(connection: Connection, dead_letter_ids: Iterable[int]) -> Iterator[DeadLetter]:
    """One after the other, so that only one payload at a time is in memory. Those that are gone are left out."""
    for number in dead_letter_ids:
        for row in rows(connection, "dead_letter_show", dead_letter_id=number):
            yield DeadLetter(**row | {"reason": mask(row["reason"])})


def retry(connection: Connection, dead_letter_ids: Sequence[int]) -> Retry:
    """Asks their pipelines to deliver these again: all of them or none.

    One that is refused again stays. Raises ConfigError if one does not exist, or no worker can retry it.
    """
    numbers = list(dict.fromkeys(dead_letter_ids))
    with transaction(connection):
        pipelines = _redelivering(connection, {show(connection, number).pipeline for number in numbers})
        for number in numbers:
            one(connection, "dead_letter_retry", dead_letter_id=number)
    return _retry(pipelines, len(numbers))


def retry_all(connection: Connection, pipeline: str) -> Retry:
    """Asks a pipeline to deliver all of its dead letters again.

    Raises ConfigError if the pipeline does not exist, or no worker can retry for it.
    """
    with transaction(connection):
        pipelines = _redelivering(connection, {pipeline})
        count = one(connection, "dead_letter_retry_all", pipeline=pipeline)
    return _retry(pipelines, count)


def discard(connection: Connection, dead_letter_ids: Sequence[int]) -> int:
    """Deletes these: all of them or none; how many. Raises ConfigError if one does not exist."""
    numbers = list(dict.fromkeys(dead_letter_ids))
    with transaction(connection):
        for number in numbers:
            one(connection, "dead_letter_discard", dead_letter_id=number)
    return len(numbers)


def discard_all(connection: Connection, pipeline: str, older_than: timedelta = timedelta()) -> int:
    """Deletes those of a pipeline whose last attempt is at least so long ago; how many.

    Raises ConfigError if the pipeline does not exist.
    """
    return int(one(connection, "dead_letter_purge", pipeline=pipeline, older_than=older_than))


def stats(connection: Connection, pipeline: str | None = None) -> list[Count]:
    """Counts by pipeline and code. Raises ConfigError if the pipeline does not exist."""
    found = [Count(**row) for row in rows(connection, "dead_letter_stats", pipeline=pipeline)]
    if not found:
        require_known(connection, pipeline)
    return found


def _redelivering(connection: Connection, names: set[str]) -> list[StoredPipeline]:
    """These pipelines. Raises ConfigError if no worker can drain one: the request would wait indefinitely."""
    pipelines = stored(connection, names)
    for pipeline in pipelines:
        if pipeline.direction == "stream":
            raise ConfigError(f"pipeline {pipeline.name} is of a stream table, which has no dead letters")
        if pipeline.direction == "jobs":
            raise ConfigError(f"pipeline {pipeline.name} is a queue of jobs: see relay jobs replay")
        kind = source_class(pipeline.type) if pipeline.direction == "reverse" and pipeline.type in SOURCES else None
        if kind is not None and issubclass(kind, PassiveSource):
            command = kind.brought_by.format(pipeline=pipeline.name)
            raise ConfigError(
                f"pipeline {pipeline.name} cannot retry: `{command}` brings its messages, not a worker. "
                "Take the message from relay dead-letter show, fix it, send it again, and discard the dead letter"
            )
    return pipelines


def _retry(pipelines: Sequence[StoredPipeline], count: int) -> Retry:
    return Retry([p.name for p in pipelines], count, [p.name for p in pipelines if not p.enabled])
