"""`relay history`: who changed which pipeline, when, and what."""

import json
from collections.abc import Sequence
from typing import Any

import click

from relay.cli.base import (
    Verb,
    database,
    json_option,
    load_settings,
    postgres_option,
    print_list,
    shown_lines,
)
from relay.cli.tables import Column, Table
from relay.operations import history as operations
from relay.operations.history import Change


@click.command(cls=Verb, short_help="Shows who changed which pipeline, and what.")
@click.argument("pipeline", required=False)
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=100, metavar="N", help="How many at most; default 100."
)
@postgres_option
@json_option
def history(pipeline: str | None, limit: int, postgres_url: str | None, as_json: bool) -> None:
    """Shows every change of all pipelines, or of one, also of one that was deleted: when, by whom, old and new.

    Shows only what differs, the last change last. Secrets are masked; that a secret has changed is shown.

    \b
    Exit codes: 0 shown_lines, also if there is no change; 1 no such pipeline, or an error; 2 wrong usage.

    \b
    Example:
      relay history to-nats
      relay history --limit 10 --json
    """
    with database(load_settings(postgres_url=postgres_url), "history") as connection:
        found = operations.read(connection, pipeline, limit=limit)
    print_list(found, _table, as_json=as_json, none="no change is known")


def _table(found: Sequence[Change]) -> Table:
    table = Table(
        Column("when", whole=True),
        Column("pipeline"),
        Column("by"),
        Column("program"),
        Column("action", whole=True),
        Column("changed", long=True),
    )
    for change in found:
        table.add_row(
            f"{change.changed_at:%Y-%m-%d %H:%M:%S}", change.pipeline, change.changed_by, change.program,
            change.action, shown_lines(_lines(change)),
        )  # fmt: skip
    return table


def _lines(change: Change) -> list[str]:
    """One for each key. Of a deletion, the word is enough."""
    if change.action == "delete":
        return []
    return [f"{key}: {_difference(sides)}" for key, sides in change.changes.items()]


def _difference(sides: dict[str, Any]) -> str:
    old, new = (json.dumps(sides[side], ensure_ascii=False) if side in sides else "" for side in ("old", "new"))
    if "old" not in sides:
        return new
    if "new" not in sides:
        return f"{old} → (none)"
    return f"{old} → {new}" if old != new else f"{old} (a secret in it has changed)"
