"""`relay jobs stats, workers`: what queues hold, and who works on it."""

from collections.abc import Sequence

import click

from relay.cli.base import (
    Verb,
    database,
    json_option,
    load_settings,
    postgres_option,
    print_list,
    shown,
)
from relay.cli.tables import Column, Table
from relay.cli.values import time_text
from relay.operations import job_queues
from relay.operations.base import seconds_text
from relay.operations.job_queues import Numbers, Worker


@click.command(cls=Verb, short_help="Shows what each queue holds.")
@click.argument("queue", required=False)
@postgres_option
@json_option
def stats(queue: str | None, postgres_url: str | None, as_json: bool) -> None:
    """Shows what each queue holds: due, scheduled, leased and dead jobs, how long the oldest has been due, its workers.

    Numbers above 10,000 are estimates. Any role that has tide.grant_reader may use it.

    \b
    Exit codes: 0 shown; 1 no such queue, or an error; 2 wrong usage.

    \b
    Example:
      relay jobs stats
      relay jobs stats mail --json
    """
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        found = job_queues.stats(connection, queue)
    print_list(
        found, numbers_table, as_json=as_json, none="there are no queues; create one: relay jobs queue create NAME"
    )


def numbers_table(found: Sequence[Numbers]) -> Table:
    table = Table(
        Column("queue"),
        Column("due", number=True),
        Column("scheduled", number=True),
        Column("leased", number=True),
        Column("limit", number=True),
        Column("dead", number=True),
        Column("oldest due", number=True),
        Column("workers", number=True),
        Column("", whole=True),
    )
    for queue in found:
        table.add_row(
            queue.queue, str(queue.due), str(queue.scheduled), str(queue.leased), str(queue.concurrency_limit or ""),
            str(queue.dead), seconds_text(queue.oldest_due_seconds) if queue.due else "", str(queue.workers),
            shown("paused", "yellow") if queue.paused else "",
        )  # fmt: skip
    return table


@click.command(cls=Verb, short_help="Lists the processes that run jobs.")
@postgres_option
@json_option
def workers(postgres_url: str | None, as_json: bool) -> None:
    """Lists the processes that run jobs: their queues, slots and jobs, and when they gave their last sign of life.

    \b
    Exit codes: 0 listed, also if there are none; 1 an error; 2 wrong usage.

    \b
    Example:
      relay jobs workers
    """
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        found = job_queues.workers(connection)
    print_list(found, _workers, as_json=as_json, none="no process runs jobs; start one: relay workers --jobs MODULE")


def _workers(found: Sequence[Worker]) -> Table:
    table = Table(
        Column("worker", number=True),
        Column("host"),
        Column("pid", number=True),
        Column("queues"),
        Column("jobs", number=True),
        Column("slots", number=True),
        Column("started", whole=True, minor=True),
        Column("last seen", whole=True),
        Column("", whole=True),
    )
    for worker in found:
        table.add_row(
            str(worker.worker_id), worker.host, str(worker.pid), ", ".join(worker.queues), str(worker.leased),
            str(worker.slots), time_text(worker.started_at), f"{seconds_text(worker.silent_seconds)} ago",
            "stopping" if worker.stopping else "",
        )  # fmt: skip
    return table
