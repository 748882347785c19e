"""`relay jobs cancel, replay, drain, purge`: what operators do to jobs."""

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import click

from relay.cli.base import Verb, database, json_option, load_settings, postgres_option, print_json, say, tell
from relay.cli.job_look import filter_options
from relay.cli.values import age, moment, require_yes
from relay.operations import job_actions as operations
from relay.operations.base import counted
from relay.operations.job_actions import MAX_JOBS
from relay.operations.job_queues import Numbers
from relay.operations.jobs import Filter

_one = click.argument("job", type=click.UUID, metavar="[ID]", required=False)
_queue = click.option("--queue", metavar="QUEUE", help="Instead of one job: those of this queue.")
_limit = click.option(
    "--limit", type=click.IntRange(1, 10_000), default=MAX_JOBS, metavar="N", help="How many at most; default 1000."
)
_yes = click.option("--yes", is_flag=True, help="Do not ask.")


@click.command(cls=Verb, short_help="Cancels a job, or many of a queue.")
@_one
@_queue
@click.option("--state", type=click.Choice(("pending", "leased")), help="Of a queue: which; default pending.")
@filter_options
@_limit
@click.option("--reason", metavar="TEXT", help="Kept with the attempt.")
@_yes
@postgres_option
@json_option
def cancel(
    job: UUID | None, queue: str | None, limit: int, reason: str | None, yes: bool, postgres_url: str | None,
    as_json: bool, **wanted: Any,
) -> None:  # fmt: skip
    """Cancels a job that waits or runs; or with --queue those that match, newest first.

    One that waits ends at once. Of one that runs, the worker is asked to stop it; it is not retried. For many it asks
    first at a terminal; elsewhere it needs --yes.

    \b
    Exit codes: 0 cancelled, or asked to stop; 1 no such job, it has ended, or not confirmed; 2 wrong usage.

    \b
    Example:
      relay jobs cancel 00000001-0000-8000-8000-000000000001 --reason 'ordered twice'
      relay jobs cancel --queue mail --name send_receipt --yes
    """
    _either(job, queue, wanted)
    if queue:
        require_yes(f"cancels {wanted['state'] or 'pending'} jobs of queue {queue}", yes)
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        if job is None:
            _many(
                "cancelled",
                operations.cancel_many(connection, Filter(queue, **wanted), max_jobs=limit, reason=reason),
                limit,
                as_json,
            )
            return
        done = operations.cancel(connection, str(job), reason=reason)
    if as_json:
        print_json(asdict(done))
    else:
        say("cancelled" if done.state == "cancelled" else "its worker was asked to stop it")


@click.command(cls=Verb, short_help="Enqueues a job again, or many of a queue.")
@_one
@_queue
@click.option(
    "--state", type=click.Choice(("dead_letter", "cancelled")), help="Of a queue: which; default dead_letter."
)
@filter_options
@_limit
@click.option("--force", is_flag=True, help="Also one that has succeeded.")
@click.option("--at", "available_at", callback=moment, metavar="TIME", help="Not before: 2030-01-31T12:00:00Z.")
@_yes
@postgres_option
@json_option
def replay(
    job: UUID | None, queue: str | None, limit: int, force: bool, available_at: datetime | None, yes: bool,
    postgres_url: str | None, as_json: bool, **wanted: Any,
) -> None:  # fmt: skip
    """Enqueues a job like one that has ended, and prints its id; or with --queue those that match.

    The new job has the idempotency key of the first, for those who receive it. --queue leaves out dead jobs that were
    replayed before; it asks first at a terminal; elsewhere it needs --yes.

    \b
    Exit codes: 0 enqueued; 1 no such job, it has not ended, it has succeeded, or not confirmed; 2 wrong usage.

    \b
    Example:
      relay jobs replay 00000001-0000-8000-8000-000000000001
      relay jobs replay --queue mail --name send_receipt --yes
    """
    _either(job, queue, wanted)
    if queue:
        if force or available_at:
            raise click.UsageError("--force and --at are for one job")
        require_yes(f"replays {wanted['state'] or 'dead_letter'} jobs of queue {queue}", yes)
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        if job is None:
            _many(
                "replayed", operations.replay_many(connection, Filter(queue, **wanted), max_jobs=limit), limit, as_json
            )
            return
        new = operations.replay(connection, str(job), force=force, available_at=available_at)
    if as_json:
        print_json({"job": new, "replay_of": str(job)})
    else:
        say(new)


@click.command(cls=Verb, short_help="Waits until a queue has nothing left to do.")
@click.argument("queue")
@click.option(
    "--timeout-seconds", type=click.FloatRange(0), default=60.0, metavar="S", help="How long at most; default 60."
)
@postgres_option
@json_option
def drain(queue: str, timeout_seconds: float, postgres_url: str | None, as_json: bool) -> None:
    """Waits until no job of QUEUE waits or runs. One that is scheduled for later waits, too.

    \b
    Exit codes: 0 drained; 1 not in time, the queue is paused, or an error; 2 wrong usage.

    \b
    Example:
      relay jobs drain mail --timeout-seconds 300
    """
    last = ""

    def watch(found: Numbers) -> None:
        nonlocal last
        line = f"{counted(found.pending, 'waits', 'wait')}, {counted(found.leased, 'runs', 'run')}"
        if line != last and (found.pending or found.leased):
            tell(line)
        last = line

    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        found = operations.drain(connection, queue, timeout_seconds, watch=watch)
    if as_json:
        print_json(asdict(found))
    else:
        say(f"queue {queue} is drained; {counted(found.dead, 'dead job is', 'dead jobs are')} kept")


@click.command(cls=Verb, short_help="Removes dead jobs.")
@click.argument("queue")
@click.option(
    "--older-than", callback=age, metavar="AGE", help="Only those that died this long ago: 90s, 30m, 12h, 7d."
)
@_yes
@postgres_option
@json_option
def purge(queue: str, older_than: timedelta | None, yes: bool, postgres_url: str | None, as_json: bool) -> None:
    """Removes dead jobs of QUEUE permanently. Asks first at a terminal; elsewhere it needs --yes.

    What has ended otherwise goes by itself, after the retention of its queue: relay jobs queue set.

    \b
    Exit codes: 0 removed, also if there were none; 1 no such queue, or not confirmed; 2 wrong usage.

    \b
    Example:
      relay jobs purge mail --older-than 7d --yes
    """
    require_yes(f"removes dead jobs of queue {queue} permanently", yes)
    total = 0
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        while count := operations.purge(connection, queue, older_than or timedelta()):
            total += count
    if as_json:
        print_json({"queue": queue, "removed": total})
    else:
        say(f"removed {counted(total, 'dead job')}")


def _either(job: UUID | None, queue: str | None, wanted: dict[str, Any]) -> None:
    if (job is None) == (queue is None):
        raise click.UsageError("give the id of a job, or --queue: one of the two")
    if job and any(wanted.values()):
        raise click.UsageError("--state, --name, --dedupe-key and --run-key need --queue")


def _many(what: str, count: int, limit: int, as_json: bool) -> None:
    if as_json:
        print_json({"jobs": count})
    else:
        say(f"{what} {counted(count, 'job')}")
    if count == limit:
        tell("there may be more: run it again")
