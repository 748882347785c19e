"""`relay replay` and `relay replays`: messages of an outbox that a pipeline delivers once more."""

import time
from typing import Any

import click
from rich.table import Table

from relay.cli.base import (
    Verb,
    Verbs,
    database,
    json_option,
    load_settings,
    output,
    postgres_option,
    print_json,
    rows,
    tell,
)
from relay.database.connection import Connection
from relay.errors import RelayError
from relay.operations.redelivery import LARGEST_ID, configured, require_known

POLL_SECONDS = 0.2

_ID = click.IntRange(1, LARGEST_ID)


@click.command(cls=Verb, short_help="Delivers messages once more.")
@click.argument("pipeline")
@click.argument("from_id", type=_ID, metavar="FROM")
@click.argument("to_id", type=_ID, metavar="[TO]", required=False)
@click.option("--dry-run", is_flag=True, help="Only say what would be delivered.")
@click.option("--wait", "wait_seconds", type=click.FloatRange(0, 86_400), metavar="S", help="Wait until it has ended.")
@postgres_option
@json_option
def replay(
    pipeline: str, from_id: int, to_id: int | None, dry_run: bool, wait_seconds: float | None, postgres_url: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Has PIPELINE deliver the messages of its outbox from id FROM to id TO once more, beside what is new.

    Both ids are delivered; without TO it is everything settled so far. The offset does not move. Messages that
    retention has removed are gone. See relay replays for how far it is, and to end it.

    \b
    Exit codes: 0 asked for (or, with --wait, ended); 1 refused, cancelled, not ended in S seconds; 2 wrong usage.

    \b
    Example:
      relay replay to-nats 1200 1300 --dry-run
      relay replay to-nats 1200 1300 --wait 60
    """
    if dry_run and wait_seconds is not None:
        raise click.UsageError("--dry-run asks for nothing that could be waited for")
    wanted = {"pipeline": pipeline, "from_id": from_id, "to_id": to_id}
    with database(load_settings(postgres_url=postgres_url), "replay") as connection:
        if dry_run:
            _show_preview(pipeline, rows(connection, "replay_preview", **wanted)[0], as_json)
            return
        enabled = configured(connection, pipeline)["enabled"]
        [asked] = rows(connection, "replay_ask", **wanted)
        standing = _standing(connection, pipeline, asked["replay_id"])
        if not enabled:
            tell(f"pipeline {pipeline} is disabled, and does it when it is enabled: relay pipeline enable {pipeline}")
        if wait_seconds is None:
            said = f"replay {standing['replay_id']} of {pipeline}, ids {from_id} to {standing['to_id']}, is asked for"
        else:
            standing = _ended(connection, standing, wait_seconds)
            said = f"replay {standing['replay_id']} has ended: {_done(standing)}"
    print_json(standing) if as_json else click.echo(said)


def _show_preview(pipeline: str, preview: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({"pipeline": pipeline, **preview})
        return
    kept = preview["oldest_kept_id"]
    click.echo(
        f"{preview['messages']} messages, {preview['bytes']} bytes, {preview['dead_letters']} of them dead letters"
    )
    if preview["messages"]:
        for end in ("first", "last"):
            click.echo(f"{end}: {preview[f'{end}_id']}, published {preview[f'{end}_at']:%Y-%m-%d %H:%M:%S} UTC")
    click.echo("the outbox keeps no message" if kept is None else f"the outbox keeps messages from {kept} on")


def _standing(connection: Connection, pipeline: str, replay_id: int) -> dict[str, Any]:
    for row in rows(connection, "replay_list", pipeline=pipeline):
        if row["replay_id"] == replay_id:
            return row
    raise RelayError(f"replay {replay_id} is gone: pipeline {pipeline} was deleted")


def _ended(connection: Connection, standing: dict[str, Any], wait_seconds: float) -> dict[str, Any]:
    """The replay when it has ended. Raises RelayError if it takes longer, was cancelled, or is gone."""
    deadline = time.monotonic() + wait_seconds
    pipeline, number = standing["pipeline"], standing["replay_id"]
    while standing["ended_at"] is None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise RelayError(
                f"replay {number} has not ended in {wait_seconds:g} s: {_done(standing)}; it goes on. "
                f"See relay replays list {pipeline}, and relay status {pipeline}"
            )
        time.sleep(min(POLL_SECONDS, left))
        standing = _standing(connection, pipeline, number)
    if state(standing) == "cancelled":
        raise RelayError(f"replay {number} was cancelled: {_done(standing)}")
    return standing


def _done(standing: dict[str, Any]) -> str:
    return f"{standing['delivered']} delivered, {standing['dead_letters']} dead letters"


def state(standing: dict[str, Any]) -> str:
    """One word for a row of `replay_list`: waiting, running, cancelled, ended."""
    if standing["ended_at"] is not None:
        return "ended" if standing["next_id"] > standing["to_id"] else "cancelled"
    return "running" if standing["next_id"] > standing["from_id"] else "waiting"


_HELP = """Lists and cancels replays, which relay replay asks for.

\b
Example:
  relay replays list
  relay replays cancel 3
"""

replays = Verbs("replays", _HELP)


@replays.command("list")
@click.argument("pipeline", required=False)
@postgres_option
@json_option
def list_replays(pipeline: str | None, postgres_url: str | None, as_json: bool) -> None:
    """Lists replays, of one pipeline or of all, and how far each has come.

    \b
    Exit codes: 0 listed, also if there are none; 1 no such pipeline, or cannot; 2 wrong usage.

    \b
    Example:
      relay replays list to-nats
    """
    with database(load_settings(postgres_url=postgres_url), "replays") as connection:
        found = rows(connection, "replay_list", pipeline=pipeline)
        if not found:
            require_known(connection, pipeline)
    if as_json:
        print_json([{**row, "state": state(row)} for row in found])
    elif not found:
        tell("there are no replays; ask for one: relay replay PIPELINE FROM TO")
    else:
        table = Table(box=None, pad_edge=False)
        for title in ("id", "pipeline", "from", "to", "next", "delivered", "dead", "state", "asked for", "by"):
            numeric = title in ("id", "from", "to", "next", "delivered", "dead")
            table.add_column(title, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
        for row in found:
            numbers = [str(row[name]) for name in ("from_id", "to_id", "next_id", "delivered", "dead_letters")]
            asked_at = f"{row['requested_at']:%Y-%m-%d %H:%M:%S}"
            table.add_row(str(row["replay_id"]), row["pipeline"], *numbers, state(row), asked_at, row["requested_by"])
        output().print(table)


@replays.command()
@click.argument("replay_id", type=_ID, metavar="ID")
@postgres_option
def cancel(replay_id: int, postgres_url: str | None) -> None:
    """Ends a replay after the batch in hand. What it has delivered stays delivered.

    \b
    Exit codes: 0 it is over, or was already; 1 there is none, or cannot; 2 wrong usage.

    \b
    Example:
      relay replays cancel 3
    """
    with database(load_settings(postgres_url=postgres_url), "replays") as connection:
        [cancelled] = rows(connection, "replay_cancel", replay_id=replay_id)
    click.echo(f"replay {replay_id} {'is cancelled' if cancelled['was_open'] else 'had ended already'}")
