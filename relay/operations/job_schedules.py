"""Schedules of jobs: set, list, delete, enable and disable them. The scheduler that owns the queue fires them."""

from dataclasses import dataclass
from datetime import datetime

from relay.errors import ConfigError, Refused
from relay.jobs import cron as expressions
from relay.operations.base import Connection, execute, one, rows
from relay.operations.job_errors import refusals
from relay.operations.jobs import NewJob


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule, without the arguments of its jobs."""

    schedule: str
    queue: str
    cron: str
    time_zone: str
    missed: str
    """What becomes of ticks that no one was there for: one, all or skip."""
    enabled: bool
    next_at: datetime | None
    """None: no scheduler has looked yet."""
    last_at: datetime | None
    last_job: str | None
    """The public id of the job that it enqueued last."""
    invalid_reason: str | None
    name: str
    """Of its jobs."""
    kind: str
    priority: int


def set_schedule(
    connection: Connection, schedule: str, cron: str, job: NewJob, *, time_zone: str = "UTC", missed: str = "one"
) -> bool:
    """Creates or changes a schedule that enqueues such jobs; True if that changed anything.

    The time and the keys for one enqueue (`available_at`, `idempotency_key`, `trace_id`) are not used. Raises
    NoSuchJob for an unknown queue, ConfigError.
    """
    try:
        expressions.check(cron, time_zone)
    except Refused as error:
        raise ConfigError(str(error)) from error
    names = ("queue", "name", "payload", "kind", "priority", "max_attempts", "timeout_seconds", "run_key", "dedupe_key",
             "dedupe", "headers", "metadata", "options")  # fmt: skip
    given = {name: getattr(job, name) for name in names}
    with refusals():
        return bool(
            one(
                connection,
                "job_schedule_set",
                schedule=schedule,
                cron=cron,
                time_zone=time_zone,
                missed=missed,
                **given,
            )
        )


def list_schedules(connection: Connection) -> list[Schedule]:
    """By name."""
    return [Schedule(**row) for row in rows(connection, "job_schedule_list")]


def delete(connection: Connection, schedule: str) -> None:
    """Jobs that it has enqueued stay. Raises NoSuchJob."""
    with refusals():
        execute(connection, "job_schedule_delete", schedule=schedule)


def enable(connection: Connection, schedule: str) -> None:
    """Its next time is counted from now. Raises NoSuchJob."""
    with refusals():
        execute(connection, "job_schedule_enable", schedule=schedule)


def disable(connection: Connection, schedule: str) -> None:
    """Raises NoSuchJob."""
    with refusals():
        execute(connection, "job_schedule_disable", schedule=schedule)
