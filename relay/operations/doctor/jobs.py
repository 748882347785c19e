"""The checks of `relay doctor` that concern jobs: queues, their workers, and handlers that no one has."""

from collections.abc import Iterator, Sequence

from relay.database.connection import Connection
from relay.operations import fleet, job_queues, job_schedules
from relay.operations.base import counted, rows, seconds_text
from relay.operations.doctor.findings import Check, Finding, failed, ok, skipped, some, warning
from relay.operations.job_queues import Numbers, Worker
from relay.operations.job_schedules import Schedule
from relay.settings import Settings

# Workers claim within milliseconds. In a burst jobs wait for slots, which is what a queue is for: this is longer.
OVERDUE_SECONDS = 300.0
# Workers that start, or are replaced, are there again by then.
UNSERVED_SECONDS = 30.0
SILENT_SECONDS = 60.0


def jobs(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """Queues that do not advance, silent workers, unknown handlers, invalid schedules."""
    queues, workers = job_queues.stats(connection), job_queues.workers(connection)
    unserved = [queue for queue in queues if not queue.paused and not queue.workers]
    # Without any worker, the check `workers` says so once, and counts the jobs too.
    is_said = bool(unserved) and not fleet.any_worker(connection)
    found = [_unserved(unserved)] if unserved and not is_said else []
    found += [finding for queue in queues for finding in _queue(queue)]
    found += [_silent(worker) for worker in workers if worker.silent_seconds > SILENT_SECONDS]
    found += [_unknown(row["queue"], row["name"], row["jobs"]) for row in rows(connection, "job_unknown_handlers")]
    found += [_invalid(s) for s in job_schedules.list_schedules(connection) if s.invalid_reason]
    yield from found
    if not found and is_said:
        yield skipped("jobs", "workers")
    elif not found:
        alive = (
            f"{counted(len(workers), 'process runs', 'processes run')} their jobs"
            if workers
            else "no process runs jobs"
        )
        yield ok("jobs", f"{counted(len(queues), 'queue')}; {alive}; nothing is overdue" if queues else "no queues yet")


def unserved_text(queues: Sequence[Numbers]) -> str:
    """Of these queues, which no worker serves, those with jobs that wait longer than a start takes; may be empty."""
    overdue = [queue for queue in queues if queue.oldest_due_seconds > UNSERVED_SECONDS]
    if not overdue:
        return ""
    due, seconds = sum(queue.due for queue in overdue), max(queue.oldest_due_seconds for queue in overdue)
    waiting = f"{counted(due, 'job is', 'jobs are')} due, the oldest for {seconds_text(seconds)}"
    return f"no worker serves {_names(overdue)}, and {waiting}"


def _names(queues: Sequence[Numbers]) -> str:
    return f"{'queue' if len(queues) == 1 else 'queues'} {some([queue.queue for queue in queues])}"


def _unserved(queues: Sequence[Numbers]) -> Finding:
    fix = "start workers that have the handlers: relay workers --jobs MODULE"
    if text := unserved_text(queues):
        return failed("jobs", text, fix)
    return warning("jobs", f"no worker serves {_names(queues)}; nothing is overdue", fix)


def _queue(queue: Numbers) -> Iterator[Finding]:
    name, overdue = queue.queue, queue.oldest_due_seconds > OVERDUE_SECONDS
    waiting = f"{counted(queue.due, 'job is', 'jobs are')} due, the oldest for {seconds_text(queue.oldest_due_seconds)}"
    if queue.paused:
        if queue.pending:
            found = f"queue {name} is paused, and {counted(queue.pending, 'job waits', 'jobs wait')} in it"
            yield warning("jobs", found, f"relay jobs queue resume {name}")
    elif not queue.workers:
        return  # `_unserved` says so
    elif overdue and queue.concurrency_limit is not None and queue.leased >= queue.concurrency_limit:
        found = f"queue {name} is at its limit of {queue.concurrency_limit}, and {waiting}"
        yield warning("jobs", found, f"raise it: relay jobs queue set {name} --concurrency-limit N")
    elif overdue:
        fix = "start more workers, or give them more slots; if it has a rate or a limit for each run key, raise that"
        yield warning("jobs", f"in queue {name} {waiting}", fix)


def _invalid(schedule: Schedule) -> Finding:
    found = f"schedule {schedule.schedule} of queue {schedule.queue} enqueues nothing: {schedule.invalid_reason}"
    return failed("jobs", found, f"relay jobs schedule set {schedule.schedule} ... with a valid --cron and --time-zone")


def _silent(worker: Worker) -> Finding:
    found = f"worker {worker.host}:{worker.pid} has been silent for {seconds_text(worker.silent_seconds)}"
    fix = "a running scheduler gives its jobs to others; check its log, and end it if it hangs"
    return warning("jobs", f"{found}, with {counted(worker.leased, 'job')}", fix)


def _unknown(queue: str, name: str, count: int) -> Finding:
    found = f"no worker of queue {queue} has a handler {name!r}: {counted(count, 'job was', 'jobs were')} handed back"
    return warning("jobs", found, "start workers with the module that has it: relay workers --jobs MODULE")


CHECKS: tuple[Check, ...] = (jobs,)
