"""What operators do to jobs: cancel and replay them, wait until a queue is drained, remove dead jobs."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from relay.errors import ConfigError, RelayError
from relay.operations.base import Connection, counted, one
from relay.operations.job_errors import refusals
from relay.operations.job_queues import Numbers, stats
from relay.operations.jobs import Filter, State

POLL_SECONDS = 0.2
MAX_JOBS = 1000
"""Of one call for many. Each is one transaction, and a cancel holds up the claims of its queue."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A job that was cancelled."""

    job: str
    state: State
    """cancelled; or leased: its worker was asked to stop, and has not ended it yet."""


def cancel(connection: Connection, job: str, *, reason: str | None = None) -> Cancelled:
    """Cancels a job that waits or runs. Raises NoSuchJob; NotPossible if it has ended."""
    with refusals():
        return Cancelled(job, one(connection, "job_cancel", job=job, reason=reason))


def cancel_many(connection: Connection, wanted: Filter, *, max_jobs: int = MAX_JOBS, reason: str | None = None) -> int:
    """Cancels jobs of a queue that are pending, or that are leased; how many. Raises NoSuchJob, ConfigError."""
    given = _of_queue(wanted, "pending")
    with refusals():
        return int(one(connection, "job_cancel_many", max_jobs=max_jobs, reason=reason, **given))


def replay(connection: Connection, job: str, *, force: bool = False, available_at: datetime | None = None) -> str:
    """Enqueues a job like one that has ended; its public id. `force`: also one that has succeeded.

    Raises NoSuchJob; NotPossible if it has not ended, or has succeeded.
    """
    with refusals():
        return str(one(connection, "job_replay", job=job, force=force, available_at=available_at))


def replay_many(connection: Connection, wanted: Filter, *, max_jobs: int = MAX_JOBS) -> int:
    """Replays jobs of a queue that are dead, and were not replayed, or that are cancelled; how many.

    Raises NoSuchJob, ConfigError.
    """
    given = _of_queue(wanted, "dead_letter")
    with refusals():
        return int(one(connection, "job_replay_many", max_jobs=max_jobs, **given))


def purge(connection: Connection, queue: str, older_than: timedelta = timedelta(), *, max_jobs: int = MAX_JOBS) -> int:
    """Removes dead jobs that died at least so long ago; how many. Raises NoSuchJob for an unknown queue."""
    with refusals():
        return int(one(connection, "job_purge", queue=queue, older_than=older_than, max_jobs=max_jobs))


def drain(
    connection: Connection,
    queue: str,
    timeout_seconds: float,
    *,
    wait: Callable[[float], Any] = time.sleep,
    watch: Callable[[Numbers], Any] = lambda _: None,
) -> Numbers:
    """Waits until nothing waits and nothing runs in a queue; what is scheduled for later counts as waiting.

    `watch` is called with the numbers of each look. Raises NoSuchJob for an unknown queue; RelayError if it is not
    drained in time, or is paused.
    """
    give_up_at = time.monotonic() + timeout_seconds
    while True:
        [found] = stats(connection, queue)
        watch(found)
        if not found.pending and not found.leased:
            return found
        left = f"{counted(found.pending, 'job waits', 'jobs wait')} and {counted(found.leased, 'runs', 'run')}"
        if found.paused and not found.leased:
            raise RelayError(f"queue {queue} is paused, and {left}: resume it with relay jobs queue resume {queue}")
        if time.monotonic() >= give_up_at:
            raise RelayError(f"queue {queue} was not drained in {timeout_seconds:g} s: {left}{_why(found)}")
        wait(POLL_SECONDS)


def _why(found: Numbers) -> str:
    if not found.workers:
        return ". No worker serves it: start one with relay workers --jobs MODULE"
    if found.pending == found.scheduled and not found.leased:
        return ". All of them are scheduled for later"
    return ""


def _of_queue(wanted: Filter, state: State) -> dict[str, Any]:
    if wanted.queue is None:
        raise ConfigError("name the queue of the jobs")
    names = ("queue", "name", "dedupe_key", "run_key")
    return {name: getattr(wanted, name) for name in names} | {"state": wanted.state or state}
