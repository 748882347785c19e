"""`relay history`: who changed which pipeline, when, and what."""

import json
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from relay.cli.base import Verb, database, json_option, load_settings, output, postgres_option, print_json, rows, tell
from relay.masking import mask_config
from relay.operations.redelivery import require_known


@click.command(cls=Verb, short_help="Shows who changed which pipeline, and what.")
@click.argument("pipeline", required=False)
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=100, metavar="N", help="The last so many; default 100."
)
@postgres_option
@json_option
def history(pipeline: str | None, limit: int, postgres_url: str | None, as_json: bool) -> None:
    """Shows every change of the pipelines, or of one, also of one that is gone: when, by whom, old and new.

    Only what differs is shown, the last change last. Secrets are masked; that one has changed is told.

    \b
    Exit codes: 0 shown, also if nothing is known; 1 no such pipeline, or cannot; 2 wrong usage.

    \b
    Example:
      relay history to-nats
      relay history --limit 10 --json
    """
    with database(load_settings(postgres_url=postgres_url), "history") as connection:
        found = rows(connection, "history", pipeline=pipeline, max_rows=limit)
        if not found:
            require_known(connection, pipeline)
    entries = [_entry(row) for row in found]
    if as_json:
        print_json(entries)
    elif not entries:
        tell("no change is known")
    else:
        output().print(_table(entries))


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    told = {name: row[name] for name in ("changed_at", "pipeline", "action", "changed_by", "program")}
    return told | {"changes": changes(row["old"], row["new"])}


def changes(old: dict[str, Any] | None, new: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """What differs between two descriptions of a pipeline, by key: `old` and `new`, each where there is one; masked.

    Keys of the configuration stand beside those of the pipeline, with `config.` before them.
    """
    before, after = _flat(old), _flat(new)
    shown = {"old": _flat(old, masked=True), "new": _flat(new, masked=True)}
    return {
        key: {side: values[key] for side, values in shown.items() if key in values}
        for key in dict.fromkeys([*before, *after])
        if _exactly(before, key) != _exactly(after, key)
    }


def _exactly(values: dict[str, Any], key: str) -> str | None:
    """As text: for Python, true is 1. None where there is no such key; null is a value."""
    return json.dumps(values[key], sort_keys=True) if key in values else None


def _flat(described: dict[str, Any] | None, *, masked: bool = False) -> dict[str, Any]:
    if described is None:
        return {}
    config = described["config"]
    beside = {key: value for key, value in described.items() if key != "config"}
    return beside | {f"config.{key}": value for key, value in (mask_config(config) if masked else config).items()}


def _table(entries: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("when", "pipeline", "by", "program", "action", "changed"):
        table.add_column(title, overflow="fold", no_wrap=title in ("when", "action"))
    for entry in entries:
        table.add_row(
            f"{entry['changed_at']:%Y-%m-%d %H:%M:%S}", entry["pipeline"], Text(entry["changed_by"]),
            Text(entry["program"]), entry["action"], Text("\n".join(_lines(entry))),
        )  # fmt: skip
    return table


def _lines(entry: dict[str, Any]) -> list[str]:
    """One for each key. Of a pipeline that is gone, it is enough that it is."""
    if entry["action"] == "delete":
        return []
    return [f"{key}: {_change(values)}" for key, values in entry["changes"].items()]


def _change(values: dict[str, Any]) -> str:
    old, new = (json.dumps(values[side], ensure_ascii=False) if side in values else "" for side in ("old", "new"))
    if "old" not in values:
        return new
    if "new" not in values:
        return f"{old} → (none)"
    return f"{old} → {new}" if old != new else f"{old} (a secret in it has changed)"
