"""`relay outbox ...`: list outboxes, and show one."""

from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.table import Table

from relay.cli.base import Verbs, database, json_option, load_settings, postgres_option, print_json, print_list, shown
from relay.operations import outboxes as operations
from relay.operations.outboxes import OutboxSummary

_HELP = """Lists outboxes, and shows one. What waits in them for which pipeline: relay status.

\b
Example:
  relay outbox list
  relay outbox show orders
"""

outbox = Verbs("outbox", _HELP)


@outbox.command("list")
@postgres_option
@json_option
def list_outboxes(postgres_url: str | None, as_json: bool) -> None:
    """Lists the outboxes. Lag is that of the consumer group that is furthest behind, in ids.

    \b
    Exit codes: 0 listed, also if there are none; 1 an error; 2 wrong usage.

    \b
    Example:
      relay outbox list --json
    """
    with database(load_settings(postgres_url=postgres_url), "outbox") as connection:
        found = operations.list_outboxes(connection)
    print_list(found, _table, as_json=as_json, none="there are no outboxes; create one: relay publish NAME --create")


def _table(found: Sequence[OutboxSummary]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("outbox", "state", "last id", "groups", "lag", "keeps (h)", "largest (bytes)"):
        table.add_column(title, justify="left" if title in ("outbox", "state") else "right", overflow="fold")
    for one in found:
        state = "enabled" if one.enabled else shown("disabled", "yellow")
        numbers = (one.last_id, one.consumer_groups, "" if one.lag is None else one.lag, one.retention_hours)
        table.add_row(one.outbox, state, *map(str, numbers), str(one.max_payload_bytes))
    return table


@outbox.command()
@click.argument("name")
@postgres_option
def show(name: str, postgres_url: str | None) -> None:
    """Shows one outbox as JSON: its settings, its numbers, and the consumer groups and pipelines that read it.

    \b
    Exit codes: 0 shown; 1 it does not exist, or an error; 2 wrong usage.

    \b
    Example:
      relay outbox show orders
    """
    with database(load_settings(postgres_url=postgres_url), "outbox") as connection:
        print_json(asdict(operations.show(connection, name)))
