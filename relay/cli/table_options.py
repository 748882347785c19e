"""`relay pipeline set --from-table`: a table in the form of Debezium's outbox becomes the outbox of the pipeline."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
from psycopg.types.json import Jsonb

from relay.database.connection import Connection
from relay.sql import query

_OPTIONS = (
    click.option("--from-table", metavar="TABLE", help="Route this table: each row inserted into it is a message."),
    click.option("--column", "columns", multiple=True, metavar="ROLE=COLUMN",
                 help="id, aggregate_type, aggregate_id, type or payload, where it has another name."),
    click.option("--header", "headers", multiple=True, metavar="HEADER=COLUMN", help="A further column, as a header."),
    click.option("--existing", is_flag=True, help="Publish the rows that are in the table already, once."),
    click.option("--existing-order", metavar="COLUMN", help="In the order of this column.  [default: as they lie]"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FromTable:
    """A table to be routed, as the options say it."""

    table: str
    columns: dict[str, str]
    headers: dict[str, str]
    existing: bool
    existing_order: str | None

    def route(self, connection: Connection, outbox: str | None) -> str:
        """Routes the table; the name of its outbox. Raises an error of psycopg."""
        parameters = {
            "source": self.table, "outbox": outbox, "columns": Jsonb(self.columns), "headers": Jsonb(self.headers),
            "existing": self.existing, "existing_order": self.existing_order,
        }  # fmt: skip
        row = connection.execute(query("table_route"), parameters).fetchone()
        assert row
        return str(row[0])


def from_table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def from_table(
    from_table: str | None,
    columns: tuple[str, ...],
    headers: tuple[str, ...],
    existing: bool,
    existing_order: str | None,
) -> FromTable | None:
    """What the options say. Raises click.UsageError if one of them needs --from-table, or is no pair."""
    if from_table is None:
        if columns or headers or existing or existing_order:
            raise click.UsageError("--column, --header, --existing and --existing-order need --from-table")
        return None
    if existing_order and not existing:
        raise click.UsageError("--existing-order needs --existing")
    return FromTable(from_table, _pairs("--column", columns), _pairs("--header", headers), existing, existing_order)


def _pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    if wrong := [name for name, equals, value in pairs if not (name and equals and value)]:
        raise click.UsageError(f"{option} {wrong[0]}: write NAME=COLUMN")
    return {name: value for name, _, value in pairs}
