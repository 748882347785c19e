"""`relay jobs enqueue, list, show, attempts`: jobs come in, and people look at them."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

import click

from relay.cli.base import (
    Verb,
    database,
    json_option,
    load_settings,
    output,
    postgres_option,
    print_json,
    print_json_text,
    say,
    tell,
)
from relay.cli.jobs_json import as_json_text
from relay.cli.tables import Column, Table
from relay.cli.values import json_text, moment, time_text
from relay.operations import jobs as operations
from relay.operations.jobs import STATES, Attempt, Filter, NewJob, Summary

job_argument = click.argument("job", type=click.UUID, metavar="ID")


def filter_options(command: Any) -> Any:
    """Which jobs: as `name`, `dedupe_key` and `run_key`."""
    for flag, name, text in (
        ("--run-key", "run_key", "Only those with this run key."),
        ("--dedupe-key", "dedupe_key", "Only those with this dedupe key."),
        ("--name", "name", "Only those with this name."),
    ):
        command = click.option(flag, name, metavar="TEXT", help=text)(command)
    return command


def job_options(command: Any) -> Any:
    """What is said of a job: `payload` and what `NewJob` has beside its time and the keys of one enqueue."""
    choice = click.Choice
    kinds, dedupes = choice(("python", "http", "dramatiq", "celery")), choice(("waiting", "unfinished"))
    for decorate in (
        click.option("--options", callback=json_text, metavar="JSON", help="An object: backoff, what follows."),
        click.option("--metadata", callback=json_text, metavar="JSON", help="An object for the handler."),
        click.option("--headers", callback=json_text, metavar="JSON", help="Of the request of an HTTP job: an object."),
        click.option("--dedupe", type=dedupes, help="Not while a job with the dedupe key is so."),
        click.option("--dedupe-key", metavar="TEXT", help="A label to list by."),
        click.option("--run-key", metavar="TEXT", help="Limits how many of the same key run at a time."),
        click.option("--timeout-seconds", type=int, default=30, metavar="S", help="Of one attempt; default 30."),
        click.option("--max-attempts", type=int, default=10, metavar="N", help="How often it is run; default 10."),
        click.option("--priority", type=int, default=0, metavar="N", help="-1000 to 1000, highest first; default 0."),
        click.option("--kind", type=kinds, default="python", help="What runs it; default python."),
        click.argument("payload", callback=json_text, default="{}", metavar="[JSON]"),
    ):
        command = decorate(command)
    return command


@click.command(cls=Verb, short_help="Enqueues a job.")
@click.argument("queue")
@click.argument("name")
@job_options
@click.option("--at", "available_at", callback=moment, metavar="TIME", help="Not before: 2030-01-31T12:00:00Z.")
@click.option("--idempotency-key", metavar="TEXT", help="Enqueues it once: again gives the first job.")
@click.option("--ignore-conflict", is_flag=True, help="Also if the first job has another name or payload.")
@click.option("--trace-id", metavar="TEXT", help="Kept with the job, and in the logs of its worker.")
@postgres_option
@json_option
def enqueue(
    queue: str, name: str, postgres_url: str | None, as_json: bool, ignore_conflict: bool, **given: Any
) -> None:
    """Enqueues a job of NAME in QUEUE, with JSON as its payload: for a Python handler, its arguments as an object.

    \b
    Exit codes: 0 enqueued, or the job that has its key; 1 refused, or an error; 2 wrong usage.

    \b
    Example:
      relay jobs enqueue mail send_receipt '{"order_id": 42}' --idempotency-key receipt:42
      relay jobs enqueue hooks notify '{"url": "https://example.com/hook", "json": {"n": 1}}' --kind http
    """
    new = NewJob(queue, name, on_conflict="ignore" if ignore_conflict else "error", **given)
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        done = operations.enqueue(connection, new)
    if as_json:
        print_json(asdict(done))
        return
    say(done.job)
    if not done.is_new:
        tell("nothing was enqueued: this job has the key")


@click.command("list", cls=Verb, short_help="Lists jobs, newest first.")
@click.argument("queue", required=False)
@click.option("--state", type=click.Choice(STATES), help="Only those in this state.")
@filter_options
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, metavar="N", help="How many; default 100.")
@click.option("--before", metavar="CURSOR", help="Go on where a page has ended.")
@postgres_option
@json_option
def list_jobs(
    queue: str | None, limit: int, before: str | None, postgres_url: str | None, as_json: bool, **wanted: Any
) -> None:
    """Lists the jobs of one queue or of all, newest first, without their payloads.

    A filter looks at 100,000 jobs at a time: then the list may be short, and says how to go on.

    \b
    Exit codes: 0 listed, also if there are none; 1 no such queue, or an error; 2 wrong usage.

    \b
    Example:
      relay jobs list
      relay jobs list mail --state dead_letter --name send_receipt --limit 10 --json
    """
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        page = operations.list_jobs(connection, Filter(queue, **wanted), limit=limit, before=before)
    if as_json:
        print_json([asdict(job) for job in page.jobs])
    elif not page.jobs:
        tell("there are no such jobs" if page.next_before is None else "there are none here")
    else:
        output().print(_table(page.jobs))
    if page.next_before is not None:
        tell(f"there may be more: continue with --before {page.next_before}")


def _table(found: Sequence[Summary]) -> Table:
    table = Table(
        Column("id", whole=True),
        Column("queue"),
        Column("name"),
        Column("state", whole=True),
        Column("attempts", number=True),
        Column("enqueued", whole=True, minor=True),
        Column("due or ended", whole=True),
        Column("code"),
    )
    for job in found:
        table.add_row(
            job.job, job.queue, job.name, job.state, f"{job.attempts}/{job.max_attempts}", time_text(job.created_at),
            time_text(job.ended_at or job.available_at), job.code or "",
        )  # fmt: skip
    return table


@click.command(cls=Verb, short_help="Shows one job in full, as JSON.")
@job_argument
@postgres_option
def show(job: UUID, postgres_url: str | None) -> None:
    """Shows one job in full, with its payload, as JSON.

    \b
    Exit codes: 0 shown; 1 it does not exist, or an error; 2 wrong usage.

    \b
    Example:
      relay jobs show 00000001-0000-8000-8000-000000000001 | jq .payload
    """
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        print_json_text(as_json_text(operations.show(connection, str(job))))


@click.command(cls=Verb, short_help="Lists the runs of a job that have ended.")
@job_argument
@postgres_option
@json_option
def attempts(job: UUID, postgres_url: str | None, as_json: bool) -> None:
    """Lists the attempts of a job that have ended: when, how long, how it ended and why.

    \b
    Exit codes: 0 listed, also if there are none; 1 no such job, or an error; 2 wrong usage.

    \b
    Example:
      relay jobs attempts 00000001-0000-8000-8000-000000000001
    """
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        found = operations.attempts(connection, str(job))
    if as_json:
        print_json_text("[" + ",\n".join(map(as_json_text, found)) + "]")
    elif not found:
        tell("it has not run yet")
    else:
        output().print(_attempts(found))


def _attempts(found: Sequence[Attempt]) -> Table:
    table = Table(
        Column("attempt", number=True),
        Column("began", whole=True),
        Column("ms", number=True),
        Column("status", whole=True),
        Column("worker", number=True),
        Column("code"),
        Column("error", long=True),
    )
    for run in found:
        table.add_row(
            str(run.attempt), time_text(run.started_at), str(run.ms), run.status, str(run.worker_id), run.code or "",
            run.error or "",
        )  # fmt: skip
    return table
