"""`relay demo`: the whole system on this machine for a moment, and a verdict on what it delivered."""

import json
from functools import partial
from pathlib import Path

import click
from rich.console import Console

from relay.cli.base import FAILED, INTERRUPTED, Verb, output, say, shown
from relay.local.demo import totals
from relay.local.demo.orders import OUTBOX
from relay.local.demo.receipts import QUEUE, Receipt
from relay.local.demo.run import Demo, Stopped
from relay.local.demo.view import View, receipts_table, table, totals_table
from relay.operations import job_queues, jobs, outboxes, pipelines, stream_tables
from relay.operations.base import Connection, execute
from relay.operations.status import read_status
from relay.process.stop import Stop

LOG_LINES = 15
PAGE = 1000


@click.command(cls=Verb, short_help="Runs the whole system here for a moment, and checks what it delivered.")
@click.option(
    "--events", type=click.IntRange(1, 10_000_000), default=5000, metavar="N", help="To commit; default 5000."
)
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=10.0, metavar="S", help="Spread over; default 10.")
@click.pass_context
def demo(ctx: click.Context, events: int, seconds: float) -> None:
    """Runs the whole system here for a moment, and checks what it delivered.

    Starts PostgreSQL and Redis in a temporary folder, a real relay-scheduler and a real dramatiq relay.workers. Eight
    writers publish orders in transactions of every kind, and roll some back. One pipeline delivers them to a file, one
    to the terminal. Some orders enqueue a job in the same transaction; some of those fail twice first. A stream table
    sums up what each customer has bought, and a third pipeline delivers its changes. At the end, everything is stopped
    and removed. Touches nothing else; needs tide-relay[embedded].

    \b
    Exit codes: 0 nothing is missing, out of order or altered, nothing that was rolled back arrived, each job ended, and
    the stream table equals its query and what was delivered of it; 1 something is not right; 2 wrong usage;
    130 interrupted.

    \b
    Example:
      relay demo --events 20000 --seconds 20
    """
    console = output()
    with Stop() as stop:
        stop.on_signals()
        try:
            verdicts, receipts, sums = _demo(console, stop, events, seconds).run()
        except Stopped:
            console.print("interrupted; everything is stopped and removed")
            ctx.exit(INTERRUPTED)
    console.print(table(verdicts))
    console.print(receipts_table(receipts))
    console.print(totals_table(sums))
    if receipts.right and sums.right and all(verdict.right for verdict in verdicts):
        arrived = shown(
            " every committed order arrived at least once, in order, every job ran, and no other;"
            " the stream table equals its query."
        )
        console.print(shown("All is right:", "green") + arrived)
        return
    console.print(shown("Not right:", "bold red"), "see the red figures above.")
    ctx.exit(FAILED)


def _demo(console: Console, stop: Stop, events: int, seconds: float) -> Demo:
    return Demo(
        events=events,
        seconds=seconds,
        stop=stop,
        set_up=_set_up,
        is_idle=_is_idle,
        tell=partial(console.print, style="dim"),
        watch=partial(View, console),
        receipts=_receipts,
        show_log=_show_log,
    )


def _set_up(connection: Connection, configs: dict[str, dict[str, str]]) -> None:
    outboxes.create(connection, OUTBOX)
    execute(connection, "demo_table")
    stream_tables.create(
        connection,
        totals.TABLE,
        totals.QUERY,
        schedule=totals.SCHEDULE,
        refresh_mode="AUTO",
        tier="hot",
        initialize=True,
    )
    stream_tables.enable_outbox(connection, totals.TABLE)
    for name, config in configs.items():
        outbox = totals.OUTBOX if name == totals.PIPELINE else OUTBOX
        pipelines.set_pipeline(connection, name, outbox, pipelines.define(json.dumps(config)))
    job_queues.create(connection, QUEUE)


def _receipts(connection: Connection) -> list[Receipt]:
    found: list[Receipt] = []
    before = None
    while True:
        page = jobs.list_jobs(connection, jobs.Filter(queue=QUEUE), limit=PAGE, before=before)
        found += [Receipt(job.dedupe_key or "", job.state, job.attempts) for job in page.jobs]
        if (before := page.next_before) is None:
            return found


def _is_idle(connection: Connection) -> bool:
    return all(pipeline.last_drain_at for pipeline in read_status(connection))


def _show_log(log: Path) -> None:
    say("", err=True)
    say(f"the end of {log.name}:", err=True)
    for line in log.read_text(errors="replace").splitlines()[-LOG_LINES:]:
        say(f"  {line}", err=True)
