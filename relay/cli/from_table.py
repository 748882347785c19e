"""The options of `relay pipeline set --from-table`."""

from collections.abc import Callable
from typing import Any

import click

from relay.operations.pipelines import RoutedTable

_OPTIONS = (
    click.option("--from-table", metavar="TABLE", help="Route this table: each row inserted into it is a message."),
    click.option("--column", "columns", multiple=True, metavar="ROLE=COLUMN",
                 help="id, aggregate_type, aggregate_id, type or payload, if its column has another name."),
    click.option("--header", "headers", multiple=True, metavar="HEADER=COLUMN", help="Another column, as a header."),
    click.option("--existing", is_flag=True, help="Publish the rows that are already in the table, once."),
    click.option("--existing-order", metavar="COLUMN", help="Order them by this column.  [default: physical order]"),
)  # fmt: skip


def from_table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def routed_table(
    from_table: str | None,
    columns: tuple[str, ...],
    headers: tuple[str, ...],
    existing: bool,
    existing_order: str | None,
) -> RoutedTable | None:
    """The table that the options describe. Raises click.UsageError if they do not fit together."""
    if from_table is None:
        if columns or headers or existing or existing_order:
            raise click.UsageError("--column, --header, --existing and --existing-order need --from-table")
        return None
    if existing_order and not existing:
        raise click.UsageError("--existing-order needs --existing")
    return RoutedTable(from_table, _pairs("--column", columns), _pairs("--header", headers), existing, existing_order)


def _pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    if wrong := [name for name, equals, value in pairs if not (name and equals and value)]:
        raise click.UsageError(f"{option} {wrong[0]}: write NAME=COLUMN")
    return {name: value for name, _, value in pairs}
