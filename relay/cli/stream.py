"""`relay stream ...`: create, list, change, refresh, resume and drop stream tables."""

from collections.abc import Sequence

import click

from relay.cli.base import Verbs, database, json_option, load_settings, postgres_option, print_list, say, shown
from relay.cli.tables import Column, Table
from relay.cli.values import require_yes
from relay.operations import stream_tables as operations
from relay.operations.base import seconds_text
from relay.operations.stream_tables import StreamTable

_HELP = """Creates tables that the fleet keeps equal to a query, and shows how they are.

\b
Example:
  relay stream create region_totals 'select region, sum(amount) from orders group by region' --schedule 5s
  relay stream list
"""

stream = Verbs("stream", _HELP)

_name = click.argument("name")
_modes = click.Choice(["AUTO", "DIFFERENTIAL", "FULL"], case_sensitive=False)
_tiers = click.Choice(["hot", "warm", "cold", "frozen"])
_STATES = {"ACTIVE": "green", "INITIALIZING": "yellow", "ERROR": "red", "SUSPENDED": "red"}


@stream.command()
@_name
@click.argument("query")
@click.option("--schedule", default="calculated", show_default=True, help="Such as 5s or 1m30s; calculated: at once.")
@click.option("--refresh-mode", type=_modes, default="AUTO", show_default=True, help="How it is refreshed.")
@click.option("--tier", type=_tiers, default="hot", show_default=True, help="Multiplies the schedule by 1, 2 or 10.")
@click.option("--suspended", is_flag=True, help="Not refreshed until it is resumed.")
@postgres_option
def create(
    name: str, query: str, schedule: str, refresh_mode: str, tier: str, suspended: bool, postgres_url: str | None
) -> None:
    """Creates a table that is kept equal to a query. The fleet fills it.

    \b
    Exit codes: 0 created; 1 it exists already, or the query is refused; 2 wrong usage.

    \b
    Example:
      relay stream create region_totals 'select region, sum(amount) from orders group by region' --schedule 5s
    """
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        operations.create(
            connection, name, query, schedule=schedule, refresh_mode=refresh_mode, tier=tier, initialize=not suspended
        )
    say(f"created stream table {name}")


@stream.command("list")
@postgres_option
@json_option
def list_stream_tables(postgres_url: str | None, as_json: bool) -> None:
    """Lists the stream tables, and why one is behind its query, or computed as a whole.

    \b
    Exit codes: 0 listed, also if there are none; 1 an error; 2 wrong usage.

    \b
    Example:
      relay stream list --json
    """
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        found = operations.list_stream_tables(connection)
    print_list(
        found, _table, as_json=as_json, none="there are no stream tables; create one: relay stream create NAME QUERY"
    )


def _table(found: Sequence[StreamTable]) -> Table:
    table = Table(
        Column("stream table"),
        Column("status", whole=True),
        Column("schedule"),
        Column("mode"),
        Column("tier"),
        Column("stale", number=True),
        Column("error, behind, or why full", long=True),
    )
    for one in found:
        stale = "" if one.staleness_seconds is None else seconds_text(one.staleness_seconds)
        status = shown(one.status, _STATES.get(one.status, ""))
        mode = (
            one.refresh_mode if one.refresh_mode == one.effective_mode else f"{one.refresh_mode}: {one.effective_mode}"
        )
        table.add_row(one.name, status, one.schedule, mode, one.tier, stale, _why(one))
    return table


def _why(one: StreamTable) -> str:
    """What went wrong, or why it is behind, or why its refreshes compute the whole query."""
    return one.last_error or one.behind or (f"FULL: {one.why_full}" if one.why_full else "")


@stream.command("set")
@_name
@click.option("--schedule", help="Such as 5s or 1m30s; calculated: at once.")
@click.option("--refresh-mode", type=_modes, help="How it is refreshed.")
@click.option("--tier", type=_tiers, help="Multiplies the schedule by 1, 2 or 10; frozen: no refresh.")
@postgres_option
def change(
    name: str, schedule: str | None, refresh_mode: str | None, tier: str | None, postgres_url: str | None
) -> None:
    """Changes a stream table. What is not given stays as it is.

    \b
    Exit codes: 0 changed; 1 no such stream table, or refused; 2 wrong usage.

    \b
    Example:
      relay stream set region_totals --tier cold
    """
    if schedule is refresh_mode is tier is None:
        raise click.UsageError("give what to change, such as --schedule 10s")
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        operations.change(connection, name, schedule=schedule, refresh_mode=refresh_mode, tier=tier)
    say(f"changed stream table {name}")


@stream.command()
@_name
@postgres_option
def refresh(name: str, postgres_url: str | None) -> None:
    """Has the fleet refresh a stream table now, whatever its schedule.

    \b
    Exit codes: 0 asked for; 1 no such stream table, or it is suspended or frozen; 2 wrong usage.

    \b
    Example:
      relay stream refresh region_totals
    """
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        operations.refresh(connection, name)
    say(f"refresh of stream table {name} asked for")


@stream.command()
@_name
@postgres_option
def resume(name: str, postgres_url: str | None) -> None:
    """Has a stream table refreshed again that failed three times in a row, or was created suspended.

    \b
    Exit codes: 0 resumed; 1 no such stream table, or an error; 2 wrong usage.

    \b
    Example:
      relay stream resume region_totals
    """
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        operations.resume(connection, name)
    say(f"resumed stream table {name}")


@stream.command()
@_name
@click.option("--yes", is_flag=True, help="Do not ask.")
@postgres_option
def drop(name: str, yes: bool, postgres_url: str | None) -> None:
    """Drops a stream table with its rows. Its sources stay as they are.

    \b
    Exit codes: 0 dropped; 1 no such stream table, or something depends on it; 2 wrong usage.

    \b
    Example:
      relay stream drop region_totals --yes
    """
    require_yes(f"drops stream table {name} with its rows", yes)
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        operations.drop(connection, name)
    say(f"dropped stream table {name}")
