"""`relay stream ...`: create, change, refresh, pause, resume and drop stream tables; others look at them."""

from typing import Any

import click

from relay.cli.base import Verbs, database, load_settings, postgres_option, say
from relay.cli.values import require_yes
from relay.operations import stream_tables as operations

_HELP = """Creates tables that the fleet keeps equal to a query, and shows how they are.

\b
Example:
  relay stream create region_totals 'select region, sum(amount) from orders group by region' --schedule 5s
  relay stream list
"""

VERBS = {
    "list": "relay.cli.stream_look:list_stream_tables",
    "show": "relay.cli.stream_look:show",
    "explain": "relay.cli.stream_look:explain",
    "history": "relay.cli.stream_look:history",
    "snapshot": "relay.cli.stream_snapshot:snapshot",
}

stream = Verbs("stream", _HELP, VERBS)

_name = click.argument("name")
_modes = click.Choice(["AUTO", "DIFFERENTIAL", "FULL", "IMMEDIATE"], case_sensitive=False)
_tiers = click.Choice(["hot", "warm", "cold", "frozen"])
_SCHEDULE = (
    "Such as 5s or 1m30s; a cron expression; calculated: when the stream tables that it reads have changed; IMMEDIATE:"
    " in the transactions that write."
)
_GROUP = "Those of one name are refreshed in one transaction, so that they always show one state."
_diamonds = click.Choice(["atomic", "none"], case_sensitive=False)
_ALONE = "none: refreshed alone, also where ways from one table meet again."
_APPEND_ONLY = "Rows of the tables that it reads are never changed or removed, so that less is captured."


@stream.command()
@_name
@click.argument("query")
@click.option("--schedule", help=f"{_SCHEDULE} Default: calculated if it reads another stream table, else 1s.")
@click.option("--refresh-mode", type=_modes, default="AUTO", show_default=True, help="How it is refreshed.")
@click.option("--tier", type=_tiers, default="hot", show_default=True, help="Multiplies the schedule by 1, 2 or 10.")
@click.option("--append-only", is_flag=True, help=_APPEND_ONLY)
@click.option("--diamond-consistency", type=_diamonds, default="atomic", show_default=True, help=_ALONE)
@click.option("--refresh-group", metavar="NAME", help=_GROUP)
@click.option("--suspended", is_flag=True, help="Not refreshed until it is resumed.")
@click.option("--replace", is_flag=True, help="If it exists: it gets this query and these options, and keeps its rows.")
@postgres_option
def create(name: str, query: str, suspended: bool, replace: bool, postgres_url: str | None, **options: Any) -> None:
    """Creates a table that is kept equal to a query. The fleet fills it.

    \b
    Exit codes: 0 created; 1 it exists already, or the query is refused; 2 wrong usage.

    \b
    Example:
      relay stream create region_totals 'select region, sum(amount) from orders group by region' --schedule 5s
    """
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        operations.create(connection, name, query, initialize=not suspended, replace=replace, **options)
    say(f"{'created or replaced' if replace else 'created'} stream table {name}")


@stream.command("set")
@_name
@click.option("--query", help="Another query, of the same columns; new ones at the end.")
@click.option("--schedule", help=_SCHEDULE)
@click.option("--refresh-mode", type=_modes, help="How it is refreshed.")
@click.option("--tier", type=_tiers, help="Multiplies the schedule by 1, 2 or 10; frozen: no refresh.")
@click.option("--append-only/--no-append-only", default=None, help=_APPEND_ONLY)
@click.option("--diamond-consistency", type=_diamonds, help=_ALONE)
@click.option("--refresh-group", metavar="NAME", help=f"{_GROUP} An empty name: none.")
@click.option(
    "--status", type=click.Choice(["ACTIVE", "SUSPENDED"], case_sensitive=False), help="SUSPENDED: no refresh."
)
@postgres_option
def change(name: str, postgres_url: str | None, **options: Any) -> None:
    """Changes a stream table. What is not given stays as it is.

    \b
    Exit codes: 0 changed; 1 no such stream table, or refused; 2 wrong usage.

    \b
    Example:
      relay stream set region_totals --tier cold
    """
    if all(value is None for value in options.values()):
        raise click.UsageError("give what to change, such as --schedule 10s")
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        operations.change(connection, name, **options)
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
@click.option("--timeout", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds.")
@postgres_option
def wait(name: str, timeout: float, postgres_url: str | None) -> None:
    """Waits until a stream table shows everything that was committed before, and so do those that it reads.

    \b
    Exit codes: 0 it does; 1 it does not yet, is not refreshed, or there is no such stream table; 2 wrong usage.

    \b
    Example:
      relay stream wait region_totals --timeout 10
    """
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        operations.wait(connection, name, timeout)
    say(f"stream table {name} shows what was committed before")


@stream.command()
@_name
@postgres_option
def pause(name: str, postgres_url: str | None) -> None:
    """Has a stream table not refreshed until it is resumed. It keeps its rows; the next refresh computes its query.

    \b
    Exit codes: 0 paused; 1 no such stream table, or an error; 2 wrong usage.

    \b
    Example:
      relay stream pause region_totals
    """
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        operations.pause(connection, name)
    say(f"paused stream table {name}")


@stream.command()
@_name
@postgres_option
def resume(name: str, postgres_url: str | None) -> None:
    """Has a stream table refreshed again that failed three times in a row, was paused, or was created suspended.

    \b
    Exit codes: 0 resumed; 1 no such stream table, or an error; 2 wrong usage.

    \b
    Example:
      relay stream resume region_totals
    """
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        operations.resume(connection, name)
    say(f"resumed stream table {name}")


@stream.command("enable-outbox")
@_name
@click.option("--outbox", metavar="NAME", help="The outbox; default: schema and table. Created if it does not exist.")
@click.option("--retention-hours", type=click.IntRange(0), help="How long messages are kept; default: of the setting.")
@postgres_option
def enable_outbox(name: str, outbox: str | None, retention_hours: int | None, postgres_url: str | None) -> None:
    """Has each refresh of a stream table publish what it changed.

    \b
    Exit codes: 0 enabled; 1 no such stream table, or it has another outbox; 2 wrong usage.

    \b
    Example:
      relay stream enable-outbox region_totals
    """
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        enabled = operations.enable_outbox(connection, name, outbox=outbox, retention_hours=retention_hours)
    say(f"stream table {name} publishes to outbox {enabled}")


@stream.command("disable-outbox")
@_name
@click.option("--drop", "drop_outbox", is_flag=True, help="Drop the outbox and its messages too.")
@postgres_option
def disable_outbox(name: str, drop_outbox: bool, postgres_url: str | None) -> None:
    """A stream table publishes no more. What was published is still delivered.

    \b
    Exit codes: 0 disabled; 1 no such stream table, or something reads the outbox; 2 wrong usage.

    \b
    Example:
      relay stream disable-outbox region_totals
    """
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        operations.disable_outbox(connection, name, drop_outbox=drop_outbox)
    say(f"stream table {name} publishes no more")


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
