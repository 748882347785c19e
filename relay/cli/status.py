"""`relay status`: the status of each pipeline, and why it is not moving."""

import sys
from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table

from relay.cli.base import Verb, database, json_option, load_settings, output, postgres_option, print_json, shown
from relay.operations.base import Connection, counted, seconds_text
from relay.operations.job_queues import Numbers
from relay.operations.status import Status, read_status
from relay.process.stop import Stop

COLOURS = {
    "disabled": "dim", "invalid": "bold red", "unowned": "red", "draining": "green", "running": "green",
    "retrying": "yellow", "held": "yellow", "waiting": "cyan", "idle": "dim",
}  # fmt: skip


@click.command(cls=Verb, short_help="Shows each pipeline, and why it is not moving.")
@click.argument("names", nargs=-1, metavar="[PIPELINE]...")
@click.option("--watch", is_flag=True, help="Repeat until Ctrl-C; with --json one line each time.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    metavar="S",
    help="Seconds between two looks of --watch; default 1.",
)
@postgres_option
@json_option
def status(names: tuple[str, ...], watch: bool, interval: float, postgres_url: str | None, as_json: bool) -> None:
    """Shows each pipeline: state, owner, offset, lag in messages and seconds, last error, why it is not moving.

    Queues of jobs are below, with their numbers. Any role that has tide.grant_relay may use it. States: idle, waiting,
    draining, running (jobs), retrying, held (an open transaction holds the horizon), unowned, disabled, invalid.

    \b
    Exit codes: 0 shown, whatever the states, and when --watch is ended; 1 failed; 2 wrong usage.

    \b
    Example:
      relay status --watch
      relay status --json | jq '.[] | select(.state == "retrying")'
    """
    with database(load_settings(postgres_url=postgres_url), "status") as connection:
        if watch:
            _watch(connection, names, interval, as_json)
        else:
            _show(read_status(connection, names), as_json)


def _show(statuses: Sequence[Status], as_json: bool, *, indent: int | None = 2) -> None:
    if as_json:
        print_json([asdict(status) for status in statuses], indent=indent)
    else:
        output().print(render(statuses))


def _watch(connection: Connection, names: Sequence[str], interval_seconds: float, as_json: bool) -> None:
    with Stop() as stop:
        stop.on_signals()
        if as_json or not sys.stdout.isatty():
            _show(read_status(connection, names), as_json, indent=None)
            while not stop.wait(interval_seconds):
                _show(read_status(connection, names), as_json, indent=None)
            return
        with Live(render(read_status(connection, names)), console=output(), auto_refresh=False, screen=True) as live:
            while not stop.wait(interval_seconds):
                live.update(render(read_status(connection, names)), refresh=True)


def render(statuses: Sequence[Status]) -> RenderableType:
    """A table of pipelines, one of queues of jobs, and below them the last errors."""
    if not statuses:
        return shown(
            "there are no pipelines; create one: relay pipeline set NAME OUTBOX|INBOX --config JSON", style="dim"
        )
    pipelines = [s for s in statuses if s.jobs is None]
    queues = [(s, s.jobs) for s in statuses if s.jobs is not None]
    tables: list[RenderableType] = [*([_pipelines(pipelines)] if pipelines else [])]
    tables += [*([""] if pipelines else []), shown("queues of jobs", "bold"), _queues(queues)] if queues else []
    return Group(*tables, *_errors(statuses), *_dead(pipelines), *_dead_in_inboxes(pipelines))


def _pipelines(statuses: Sequence[Status]) -> Table:
    table = _table("pipeline", "state", "owner", "offset", "lag", "age", "delivered", "dead", "why")
    for s in statuses:
        age = seconds_text(s.lag_seconds) if s.lag_messages else ""
        offset, lag = ("", "") if s.offset_id is None else (str(s.offset_id), str(s.lag_messages))
        table.add_row(
            s.name, shown(s.state, style=COLOURS[s.state]), s.owner or "", offset, lag, age,
            str(s.delivered), str(s.dead_letters), s.why,
        )  # fmt: skip
    return table


def _queues(statuses: Sequence[tuple[Status, Numbers]]) -> Table:
    table = _table("queue", "state", "owner", "due", "age", "scheduled", "leased", "dead", "workers", "why")
    for s, jobs in statuses:
        table.add_row(
            jobs.queue, shown(s.state, style=COLOURS[s.state]), s.owner or "", str(jobs.due),
            seconds_text(s.lag_seconds) if jobs.due else "", str(jobs.scheduled), str(jobs.leased), str(jobs.dead),
            str(jobs.workers), s.why,
        )  # fmt: skip
    return table


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in titles:
        numeric = title not in ("pipeline", "queue", "state", "owner", "why")
        table.add_column(title, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    return table


def _errors(statuses: Sequence[Status]) -> list[RenderableType]:
    failed = [s for s in statuses if s.last_error and s.last_error_at]
    lines = [f"{s.name}, {s.last_error_at:%Y-%m-%d %H:%M:%S} UTC, {s.last_error_code}: {s.last_error}" for s in failed]
    return ["", shown("last errors", "bold"), *(shown(line) for line in lines)] if lines else []


def _dead(statuses: Sequence[Status]) -> list[RenderableType]:
    if not any(s.dead_letters for s in statuses):
        return []
    text = "dead: refused since the pipeline was created; those still kept: relay dead-letter stats"
    return ["", shown(text, "dim")]


def _dead_in_inboxes(statuses: Sequence[Status]) -> list[RenderableType]:
    """A line for each inbox, however many pipelines write it."""
    dead = {s.inbox: s.inbox_dead for s in statuses if s.inbox and s.inbox_dead}
    lines = [
        f"inbox {inbox} has {counted(count, 'dead message')}: relay inbox messages {inbox} --dead"
        for inbox, count in sorted(dead.items())
    ]
    return ["", *(shown(line, style="red") for line in lines)] if lines else []
