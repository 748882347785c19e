"""`relay status`: the status of each pipeline, and why it is not moving."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime

import click
from rich.console import Group
from rich.live import Live

from relay.cli.base import Verb, database, json_option, load_settings, output, postgres_option, print_json, say, tell
from relay.cli.status_screen import Screen, Watched, clock_text, read_only_text
from relay.cli.status_view import lines_of
from relay.cli.status_watch import Looking
from relay.errors import RelayError
from relay.operations.base import Connection
from relay.operations.status import Look, look
from relay.process.stop import Stop
from relay.settings import Settings

_STOP_SECONDS = 0.5
"""How long it may take until it notices that it is to end."""
_SLOW_SECONDS = 2.0
"""An answer that takes longer is told."""


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
    """Shows each pipeline: state, owner, offset, lag in messages and seconds, dead letters, why it is not moving.

    What is broken comes first. Queues of jobs are below, with their numbers. Any role that has tide.grant_relay may use
    it. States: idle, waiting, draining, running (jobs), retrying, broken (it does not recover automatically), held (an
    open transaction holds the horizon), unowned, disabled, invalid. --watch goes on while PostgreSQL is away.

    \b
    Exit codes: 0 shown, whatever the states, and when --watch is ended; 1 failed; 2 wrong usage.

    \b
    Example:
      relay status --watch
      relay status --json | jq '.[] | select(.state == "retrying")'
    """
    settings = load_settings(postgres_url=postgres_url)
    if watch:
        _watch(settings, names, interval, as_json)
        return
    with database(settings, "status") as connection:
        _show(look(connection, names), as_json)


def _show(seen: Look, as_json: bool, *, indent: int | None = 2) -> None:
    if as_json:
        print_json([asdict(status) for status in seen.statuses], indent=indent)
        return
    if seen.read_only:
        tell(read_only_text(seen.read_only))
    console = output()
    console.print(Group(*lines_of(seen.statuses, console.width)))


def _watch(settings: Settings, names: Sequence[str], interval_seconds: float, as_json: bool) -> None:
    def connect() -> AbstractContextManager[Connection]:
        return database(settings, "status")

    with Stop() as stop, Looking(connect, names, interval_seconds) as looking:
        stop.on_signals()
        if as_json or not sys.stdout.isatty():
            _print_each(looking, stop, as_json)
        else:
            _on_screen(looking, stop, interval_seconds)


def _print_each(looking: Looking, stop: Stop, as_json: bool) -> None:
    """Each look; why there is none goes to standard error, so that what is printed keeps its form."""
    while not stop.is_set():
        seen = looking.next(_STOP_SECONDS)
        if isinstance(seen, RelayError):
            tell(f"{clock_text(datetime.now(UTC))} no status: {seen}")
        elif seen:
            if not as_json:
                say(clock_text(seen.at))
            _show(seen, as_json, indent=None)


def _on_screen(looking: Looking, stop: Stop, interval_seconds: float) -> None:
    last: Look | None = None
    trouble: str | None = None
    with Live(console=output(), auto_refresh=False, screen=True) as live:
        while not stop.is_set():
            seen = looking.next(min(interval_seconds, _STOP_SECONDS))
            now = datetime.now(UTC)
            if isinstance(seen, RelayError):
                trouble = str(seen)
            elif seen:
                last, trouble = seen, None
            elif last is None or (now - last.at).total_seconds() > interval_seconds + _SLOW_SECONDS:
                trouble = trouble or "PostgreSQL has not answered yet"
            live.update(Screen(Watched(last, trouble, now)), refresh=True)
