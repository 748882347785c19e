"""`relay status`: how each pipeline is, and why it is not moving."""

import sys
from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from relay.cli.base import Verb, database, json_option, load_settings, output, postgres_option, print_json
from relay.errors import ConfigError
from relay.operations.base import Connection, seconds_text
from relay.operations.status import Status, read
from relay.process.stop import Stop

COLOURS = {
    "disabled": "dim", "invalid": "bold red", "unowned": "red", "draining": "green", "retrying": "yellow",
    "held": "yellow", "waiting": "cyan", "idle": "dim",
}  # fmt: skip


@click.command(cls=Verb, short_help="Shows each pipeline, and why it is not moving.")
@click.argument("names", nargs=-1, metavar="[PIPELINE]...")
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C; with --json one line each time.")
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=1.0, metavar="S", help="Of --watch; default 1.")
@postgres_option
@json_option
def status(names: tuple[str, ...], watch: bool, interval: float, postgres_url: str | None, as_json: bool) -> None:
    """Shows each pipeline: state, owner, offset, lag in messages and seconds, last error, why it is not moving.

    Reads as any role that has tide.grant_relay. States: idle, waiting, draining, retrying, held (an open transaction
    holds the horizon), unowned, disabled, invalid.

    \b
    Exit codes: 0 shown, whatever the pipelines' states; 1 cannot; 2 wrong usage; 0 also when --watch is ended.

    \b
    Example:
      relay status --watch
      relay status --json | jq '.[] | select(.state == "retrying")'
    """
    with database(load_settings(postgres_url=postgres_url), "status") as connection:
        if watch:
            _watch(connection, names, interval, as_json)
        elif as_json:
            print_json([asdict(standing) for standing in _read(connection, names)])
        else:
            output().print(render(_read(connection, names)))


def _watch(connection: Connection, names: Sequence[str], interval_seconds: float, as_json: bool) -> None:
    with Stop() as stop:
        stop.on_signals()
        if as_json or not sys.stdout.isatty():
            while True:
                standings = _read(connection, names)
                if as_json:
                    print_json([asdict(standing) for standing in standings], indent=None)
                else:
                    output().print(render(standings))
                if stop.wait(interval_seconds):
                    return
        with Live(render(_read(connection, names)), console=output(), auto_refresh=False, screen=True) as live:
            while not stop.wait(interval_seconds):
                live.update(render(_read(connection, names)), refresh=True)


def _read(connection: Connection, names: Sequence[str]) -> list[Status]:
    standings = read(connection)
    if missing := sorted(set(names) - {standing.name for standing in standings}):
        raise ConfigError(f"pipeline {', '.join(missing)} does not exist; list them: relay pipeline list")
    return [standing for standing in standings if not names or standing.name in names]


def render(standings: Sequence[Status]) -> RenderableType:
    """The table, and below it the last errors."""
    if not standings:
        return Text("there are no pipelines; make one: relay pipeline set NAME OUTBOX|INBOX --config JSON", style="dim")
    table = Table(box=None, pad_edge=False)
    for title in ("pipeline", "state", "owner", "offset", "lag", "age", "delivered", "dead", "why"):
        numeric = title in ("offset", "lag", "age", "delivered", "dead")
        table.add_column(title, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for s in standings:
        age = seconds_text(s.lag_seconds) if s.lag_messages else ""
        offset, lag = ("", "") if s.offset_id is None else (str(s.offset_id), str(s.lag_messages))
        table.add_row(
            s.name, Text(s.state, style=COLOURS[s.state]), s.owner or "", offset, lag, age,
            str(s.delivered), str(s.dead_letters), Text(s.why),
        )  # fmt: skip
    return Group(table, *_errors(standings), *_dead(standings))


def _errors(standings: Sequence[Status]) -> list[RenderableType]:
    failed = [s for s in standings if s.last_error and s.last_error_at]
    lines = [f"{s.name}, {s.last_error_at:%Y-%m-%d %H:%M:%S} UTC, {s.last_error_code}: {s.last_error}" for s in failed]
    return [Text("\nlast errors", style="bold"), *(Text(line) for line in lines)] if lines else []


def _dead(standings: Sequence[Status]) -> list[RenderableType]:
    if not any(s.dead_letters for s in standings):
        return []
    text = "\ndead: refused since the pipeline was made; what is there now: relay dead-letter stats"
    return [Text(text, style="dim")]
