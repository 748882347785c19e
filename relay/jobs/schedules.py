"""Schedules that handlers declare: `@job(cron="30 6 * * MON-FRI")`. Workers set them in the database at their start."""

from collections.abc import Iterable
from typing import Any

from relay.database.callers import Arguments, call, call_async
from relay.jobs.errors import BadArguments, BadOptions, job_errors
from relay.jobs.handlers import AnyJob

# Without the idempotency key, which would be that of every tick, and what belongs to one enqueue.
_COLUMNS = (
    "priority", "max_attempts", "timeout_seconds", "run_key", "dedupe_key", "dedupe", "headers", "metadata", "options"
)  # fmt: skip


def declare_schedules(connection: Any, handlers: Iterable[AnyJob]) -> list[str]:
    """Sets the schedule of each handler that has one; it has the name of the job. Returns those that this changed.

    A disabled one stays disabled. One whose handler is gone stays, because workers of another version may have it: an
    operator deletes it. Raises BadOptions, before anything is set, for a handler that needs arguments.
    """
    wanted = _wanted(handlers)
    with job_errors():
        rows = {name: call(connection, "job_schedule_set", each) for name, each in wanted.items()}
    return [name for name, [(changed,)] in rows.items() if changed]


async def declare_schedules_async(connection: Any, handlers: Iterable[AnyJob]) -> list[str]:
    wanted = _wanted(handlers)
    with job_errors():
        rows = {name: await call_async(connection, "job_schedule_set", each) for name, each in wanted.items()}
    return [name for name, [(changed,)] in rows.items() if changed]


def _wanted(handlers: Iterable[AnyJob]) -> dict[str, Arguments]:
    return {each.name: _arguments(each, each.cron) for each in handlers if each.cron is not None}


def _arguments(handler: AnyJob, cron: str) -> Arguments:
    try:
        job = handler.new_job((), {})
    except BadArguments as error:
        raise BadOptions(f"job {handler.name!r} has a cron expression, so it must need no arguments: {error}") from None
    return {
        "schedule": ("text", handler.name),
        "queue": ("text", job.queue),
        "cron": ("text", cron),
        "time_zone": ("text", handler.time_zone),
        "missed": ("text", handler.missed),
        "name": ("text", job.name),
        "payload": ("jsonb", job.payload),
        **{column: job.columns[column] for column in _COLUMNS if column in job.columns},
    }
