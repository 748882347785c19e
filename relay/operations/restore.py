"""After a database went back to an earlier time: outboxes skip ids, and what each pipeline does about the lost time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from psycopg import errors as pg

from relay.errors import RelayError
from relay.operations.base import Connection, execute, one, rows
from relay.operations.pipelines import StoredPipeline, stored
from relay.operations.status_facts import is_alive

POLL_SECONDS = 0.2

_AGAIN = "continues from its restored offset: delivers again, under the same ids, what it delivered since"
_POSITION = "continues from its restored position: stores again what the source still has, without duplicates"
_ACKNOWLEDGED = "cannot go back on its own: the source does not repeat what was acknowledged since"
_SENDER = "has nothing to go back to: the sender must send again what was answered since"
_FORWARD = {
    "kafka": f"{_AGAIN}; with transactional, skips what Kafka already has of the last batches",
    "redis": f"{_AGAIN}; with exactly_once, entries that were trimmed become dead letters (id_passed)",
    "object_storage": f"{_AGAIN}; the current object keeps its name, other objects may be cut differently and overlap",
    "inbox": f"{_AGAIN}; the inbox skips what it already has",
}
_REVERSE = {
    "kafka": _POSITION,
    "file": _POSITION,
    "outbox": _POSITION,
    "redis": f"{_ACKNOWLEDGED}; set its group back: XGROUP SETID",
    "nats": f"{_ACKNOWLEDGED}; give it another consumer with deliver_policy by_start_sequence",
    "rabbitmq": f"{_ACKNOWLEDGED}; the sender must send it again",
    "sqs": f"{_ACKNOWLEDGED}; the sender must send it again",
    "webhook": _SENDER,
    "stdin": _SENDER,
}
_STREAM = "it is computed again at its next refresh"
_JOBS = "jobs that ended in the time that is lost run again; those that were enqueued in it are gone"


@dataclass(frozen=True, slots=True)
class Skip:
    """How far one outbox skips."""

    outbox: str
    last_id: int
    """The last id before the skip."""
    highest_id: int
    """The highest id that is stored, or was taken: above the last id where the sequence was not copied."""
    first_id: int
    """The first id after it."""
    error: str | None = None
    """Why it did not skip."""


@dataclass(frozen=True, slots=True)
class Raised:
    """A sequence that was behind what its column holds."""

    sequence: str
    last_value: int | None
    stored: int | None
    """The highest number in its column."""
    problem: str | None
    """Why it was left as it is."""


@dataclass(frozen=True, slots=True)
class Consequence:
    """What a pipeline does about the time that is lost."""

    pipeline: str
    type: str
    """Of its sink or source."""
    then: str


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done, or (dry run) would be done."""

    dry_run: bool
    outboxes: list[Skip]
    sequences: list[Raised]
    """Dead letters, rows of inboxes, the catalog: those that were behind."""
    pipelines: list[Consequence]
    running_schedulers: int
    new_identity: str | None = None
    """With `renew_identity`: what the database is called in the names of queues from now on."""


def restored(
    connection: Connection,
    outboxes: Sequence[str] = (),
    *,
    margin: int = 1_000_000,
    timeout_seconds: float = 60.0,
    dry_run: bool = False,
    renew_identity: bool = False,
) -> Restored:
    """Has these outboxes (default: all) and all epochs skip `margin` ids, so that no id is given twice.

    An outbox whose transactions are in the way is retried for `timeout_seconds` in all, and then named in its
    `Skip`; the others skip. Whatever else numbers rows, and is behind what is stored, is set above that.
    Raises ConfigError if an outbox does not exist; then nothing has skipped.
    `renew_identity` is for a copy whose original goes on: they share no queue then.
    """
    skips = _planned(connection, outboxes, margin)
    sequences = [Raised(**row) for row in rows(connection, "raise_sequences", dry_run=dry_run)]
    if not dry_run:
        one(connection, "skip_epochs", margin=margin)
        execute(connection, "stream_forget")
        deadline = time.monotonic() + timeout_seconds
        skips = [_skip(connection, skip, margin, deadline) for skip in skips]
    identity = one(connection, "renew_identity") if renew_identity and not dry_run else None
    alive = sum(is_alive(row) for row in rows(connection, "status_schedulers"))
    return Restored(
        dry_run, skips, sequences, [_consequence(pipeline) for pipeline in stored(connection)], alive, identity
    )


def _planned(connection: Connection, outboxes: Sequence[str], margin: int) -> list[Skip]:
    names = list(dict.fromkeys(outboxes)) or [row["name"] for row in rows(connection, "skip_outboxes")]
    return [Skip(**row) for name in names for row in rows(connection, "skip_plan", outbox=name, margin=margin)]


def _skip(connection: Connection, skip: Skip, margin: int, deadline: float) -> Skip:
    while True:
        try:
            return replace(skip, first_id=one(connection, "skip_ids", outbox=skip.outbox, margin=margin))
        except RelayError as error:
            locked = error.__cause__
            if not isinstance(locked, pg.LockNotAvailable):
                raise
            if time.monotonic() + POLL_SECONDS >= deadline:
                return replace(skip, error=f"{locked.diag.message_primary}. {locked.diag.message_hint}")
        time.sleep(POLL_SECONDS)


def _consequence(pipeline: StoredPipeline) -> Consequence:
    if pipeline.direction == "stream":
        return Consequence(pipeline.name, pipeline.type, _STREAM)
    if pipeline.direction == "jobs":
        return Consequence(pipeline.name, pipeline.type, _JOBS)
    forward = pipeline.direction == "forward"
    known, otherwise = (_FORWARD, _AGAIN) if forward else (_REVERSE, _ACKNOWLEDGED)
    return Consequence(pipeline.name, pipeline.type, known.get(pipeline.type, otherwise))
