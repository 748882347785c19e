"""`relay stream snapshot ...`: take, list, restore and drop snapshots of stream tables."""

from collections.abc import Sequence

import click

from relay.cli.base import (
    Verbs,
    database,
    json_option,
    load_settings,
    postgres_option,
    print_json,
    print_list,
    say,
)
from relay.cli.tables import Column, Table
from relay.cli.values import require_yes, time_text
from relay.operations import stream_snapshots as operations
from relay.operations.stream_snapshots import Snapshot

_HELP = """Takes, lists, restores and drops snapshots: tables with the rows that a stream table had.

\b
Example:
  relay stream snapshot take region_totals region_totals_monday
  relay stream snapshot list
"""

snapshot = Verbs("snapshot", _HELP)

_name = click.argument("name")
_source = click.argument("snapshot", metavar="SNAPSHOT")


@snapshot.command()
@_name
@_source
@postgres_option
@json_option
def take(name: str, snapshot: str, postgres_url: str | None, as_json: bool) -> None:
    """Copies the rows of the stream table NAME, as of its last refresh, to a new table SNAPSHOT.

    \b
    Exit codes: 0 taken; 1 no such stream table, it is not filled, or the table exists; 2 wrong usage.

    \b
    Example:
      relay stream snapshot take region_totals region_totals_monday
    """
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        taken = operations.take(connection, name, snapshot)
    if as_json:
        print_json({"snapshot_table": taken})
    else:
        say(f"took snapshot {taken} of stream table {name}")


@snapshot.command("list")
@click.argument("name", required=False)
@postgres_option
@json_option
def list_snapshots(name: str | None, postgres_url: str | None, as_json: bool) -> None:
    """Lists the snapshots of one stream table or of all, oldest first.

    \b
    Exit codes: 0 listed, also if there are none; 1 no such stream table, or an error; 2 wrong usage.

    \b
    Example:
      relay stream snapshot list region_totals --json
    """
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        found = operations.list_snapshots(connection, name)
    print_list(
        found,
        _table,
        as_json=as_json,
        none="there are no snapshots; take one: relay stream snapshot take NAME SNAPSHOT",
    )


def _table(found: Sequence[Snapshot]) -> Table:
    table = Table(
        Column("snapshot"),
        Column("stream table"),
        Column("rows", number=True),
        Column("bytes", number=True),
        Column("shows", whole=True),
        Column("taken", whole=True, minor=True),
    )
    for one in found:
        table.add_row(
            one.snapshot_table, one.stream_table, str(one.row_count), str(one.size_bytes),
            time_text(one.data_timestamp), time_text(one.created_at),
        )  # fmt: skip
    return table


@snapshot.command()
@_name
@_source
@postgres_option
@json_option
def restore(name: str, snapshot: str, postgres_url: str | None, as_json: bool) -> None:
    """Makes the rows of the stream table NAME those of SNAPSHOT. The next refresh brings them to the present.

    \b
    Exit codes: 0 restored; 1 no such stream table or snapshot, or refused; 2 wrong usage.

    \b
    Example:
      relay stream snapshot restore region_totals region_totals_monday
    """
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        why = operations.restore(connection, name, snapshot)
    if as_json:
        print_json({"computed_because": why})
        return
    follows = f"computes its query: {why}" if why else "goes on from there"
    say(f"restored stream table {name}; the next refresh {follows}")


@snapshot.command()
@_source
@click.option("--yes", is_flag=True, help="Do not ask.")
@postgres_option
def drop(snapshot: str, yes: bool, postgres_url: str | None) -> None:
    """Drops the table of a snapshot, and no other table. Asks first at a terminal; elsewhere it needs --yes.

    \b
    Exit codes: 0 dropped; 1 no such snapshot, something depends on it, or not confirmed; 2 wrong usage.

    \b
    Example:
      relay stream snapshot drop region_totals_monday --yes
    """
    require_yes(f"drops snapshot {snapshot}", yes)
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        operations.drop(connection, snapshot)
    say(f"dropped snapshot {snapshot}")
