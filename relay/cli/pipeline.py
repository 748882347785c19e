"""`relay pipeline ...`: what pipelines there are, and changing them."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from relay.cli.base import (
    FAILED,
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
from relay.cli.table_options import from_table, from_table_options
from relay.database.connection import Connection
from relay.errors import ConfigError
from relay.masking import mask, mask_config
from relay.pipelines.config import ReverseConfig, parse
from relay.sql import query

_HELP = """Lists, shows, changes and checks pipelines. Secrets are masked in everything that is printed.

\b
Example:
  relay pipeline set to-nats orders --config '{"sink_type": "nats", "url": "nats://localhost:4222", "stream": "orders"}'
  relay pipeline set from-file commands --config '{"source_type": "file", "path": "/tmp/commands.jsonl"}'
  relay pipeline list
"""

pipeline = Verbs("pipeline", _HELP)


@pipeline.command("list")
@postgres_option
@json_option
def list_pipelines(postgres_url: str | None, as_json: bool) -> None:
    """Lists the pipelines.

    \b
    Exit codes: 0 listed, also if there are none; 1 cannot; 2 wrong usage.

    \b
    Example:
      relay pipeline list --json
    """
    with database(load_settings(postgres_url=postgres_url), "pipeline") as connection:
        found = _pipelines(connection)
    if as_json:
        print_json(found)
    elif not found:
        tell("there are no pipelines; make one: relay pipeline set NAME OUTBOX|INBOX --config JSON")
    else:
        table = Table("pipeline", "from", "to", "group", "state", "reason", box=None, pad_edge=False)
        for row in found:
            origin = row["outbox"] or str(row["config"].get("source_type"))
            destination = row["inbox"] or str(row["config"].get("sink_type"))
            group = row["consumer_group"] or ""
            table.add_row(row["name"], origin, destination, group, row["state"], row["reason"] or "")
        output().print(table)


@pipeline.command()
@click.argument("name")
@postgres_option
def show(name: str, postgres_url: str | None) -> None:
    """Shows one pipeline as JSON: its configuration, outbox and consumer group or inbox, and state.

    \b
    Exit codes: 0 shown; 1 there is none, or cannot; 2 wrong usage.

    \b
    Example:
      relay pipeline show to-nats
    """
    with database(load_settings(postgres_url=postgres_url), "pipeline") as connection:
        print_json(_pipelines(connection, [name])[0])


@pipeline.command("set")
@click.argument("name")
@click.argument("box", metavar="[OUTBOX|INBOX]", required=False)
@click.option("--config", required=True, metavar="JSON|@FILE|-", help="The configuration; @FILE or - (standard input).")
@click.option("--group", metavar="G", help="Consumer group.  [default: the one it has, else the pipeline's name]")
@from_table_options
@click.option("--dry-run", is_flag=True, help="Only say whether it would be set: everything is tried, and undone.")
@postgres_option
def set_pipeline(
    name: str, box: str | None, config: str, group: str | None, dry_run: bool, postgres_url: str | None, **table: Any
) -> None:
    """Creates the pipeline NAME, or changes it: from OUTBOX to a sink, or from a source to INBOX.

    Which of the two is told by sink_type or source_type in the configuration. It is checked first; a wrong one changes
    nothing. It takes effect within a second. A new pipeline is enabled; a forward one begins at the oldest message
    kept. A change of --group or OUTBOX forgets the old offset. Put secrets as ${env:NAME} or ${file:PATH}.

    \b
    Exit codes: 0 set; 1 refused, or cannot; 2 wrong usage.

    \b
    Example:
      relay pipeline set to-file orders --config '{"sink_type": "file", "path": "/tmp/orders.jsonl"}'
      relay pipeline set to-nats orders --config @nats.json --group billing
      relay pipeline set from-file commands --config '{"source_type": "file", "path": "/tmp/commands.jsonl"}'
      relay pipeline set to-kafka --from-table public.outbox --config @kafka.json
    """
    text = _read(config)
    wanted = _parse(text)
    reverse = isinstance(parse(wanted), ReverseConfig)
    routed = from_table(**table)
    if reverse and (group or routed):
        raise click.UsageError("--group, --from-table are for forward pipelines: a reverse one has no consumer group")
    if box is None and routed is None:
        raise click.UsageError("name the OUTBOX or the INBOX, or a table: --from-table")
    with (
        database(load_settings(postgres_url=postgres_url), "pipeline") as connection,
        connection.transaction(force_rollback=dry_run),
    ):
        if routed:
            box = routed.route(connection, box)
        if reverse:
            connection.execute(query("pipeline_set_inbox"), {"name": name, "inbox": box, "config": text})
        else:
            connection.execute(query("pipeline_set"), {"name": name, "outbox": box, "group": group, "config": text})
    if mask_config(wanted) != wanted:
        tell("the configuration holds a secret in plain text, which everybody sees who may read the table; "
             "better: ${env:NAME} or ${file:PATH}")  # fmt: skip
    done = "could be set" if dry_run else "is set"
    origin = f"table {routed.table}, " if routed else ""
    click.echo(f"pipeline {name} {done}, {'into inbox' if reverse else f'from {origin}outbox'} {box}")


def _simple(verb: str, told: str, text: str) -> None:
    def run(name: str, postgres_url: str | None) -> None:
        with database(load_settings(postgres_url=postgres_url), "pipeline") as connection:
            connection.execute(query(f"pipeline_{verb}"), {"name": name})
        click.echo(f"pipeline {name} is {told}")

    run.__doc__ = (
        f"{text}\n\n\b\nExit codes: 0 done; 1 there is none, or cannot; 2 wrong usage."
        f"\n\n\b\nExample:\n  relay pipeline {verb} to-nats"
    )
    pipeline.command(verb)(click.argument("name")(postgres_option(run)))


_simple("enable", "enabled", "Lets a pipeline run; it goes on where it stopped.")
_simple("disable", "disabled", "Stops a pipeline after the batch in hand. It keeps its offset.")


@pipeline.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@postgres_option
def delete(name: str, yes: bool, postgres_url: str | None) -> None:
    """Removes a pipeline and its offset. Asks first, at a terminal; elsewhere it needs --yes.

    \b
    Exit codes: 0 removed; 1 there is none, not confirmed, or cannot; 2 wrong usage.

    \b
    Example:
      relay pipeline delete to-nats --yes
    """
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"pipeline {name} would forget its offset: give --yes to delete it")
        if not click.confirm(f"Delete pipeline {name} and forget its offset?", err=True):
            raise ConfigError("nothing was deleted")
    with database(load_settings(postgres_url=postgres_url), "pipeline") as connection:
        connection.execute(query("pipeline_delete"), {"name": name})
    click.echo(f"pipeline {name} is deleted")


@pipeline.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--file", "files", multiple=True, metavar="F", help="A configuration from a file, or - ; no database.")
@postgres_option
@json_option
@click.pass_context
def validate(
    ctx: click.Context, names: tuple[str, ...], files: tuple[str, ...], postgres_url: str | None, as_json: bool
) -> None:
    """Checks configurations: those of all pipelines, of those named, or in files. Every wrong key is named.

    \b
    Exit codes: 0 all are valid; 1 one is not, or cannot; 2 wrong usage.

    \b
    Example:
      relay pipeline validate
      relay pipeline validate --file nats.json
    """
    if names and files:
        raise click.UsageError("give names or --file, not both")
    found = dict(_from_files(files) if files else _from_database(names, postgres_url))
    if as_json:
        print_json([{"name": name, "valid": reason is None, "reason": reason} for name, reason in found.items()])
    else:
        for name, reason in found.items():
            click.echo(f"{name}: {'valid' if reason is None else f'invalid: {reason}'}")
    ctx.exit(FAILED if any(found.values()) else 0)


def _from_files(files: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
    for file in files:
        yield file, _reason(lambda file=file: parse(_parse(_read(file if file == "-" else f"@{file}"))))


def _from_database(names: tuple[str, ...], postgres_url: str | None) -> Iterator[tuple[str, str | None]]:
    with database(load_settings(postgres_url=postgres_url), "pipeline") as connection:
        parameters = {"names": list(names) or None}
        for row in _existing(rows(connection, "pipeline_list", **parameters), names):
            yield row["name"], _reason(lambda row=row: parse(row["config"]))


def _reason(check: Any) -> str | None:
    try:
        check()
    except ConfigError as error:
        return mask(str(error))
    return None


def _pipelines(connection: Connection, names: list[str] | None = None) -> list[dict[str, Any]]:
    """Pipelines as people see them: secrets masked, one word for the state. Raises ConfigError for a missing one."""
    return [
        {
            "name": row["name"],
            "direction": row["direction"],
            "outbox": row["outbox"],
            "consumer_group": row["consumer_group"],
            "inbox": row["inbox"],
            "state": state_word(row["enabled"], row["invalid_reason"]),
            "reason": row["invalid_reason"],
            "config": mask_config(row["config"]),
            "updated_at": row["updated_at"],
        }
        for row in _existing(rows(connection, "pipeline_list", names=names), names or ())
    ]


def state_word(enabled: bool, invalid_reason: str | None) -> str:
    return "disabled" if not enabled else "invalid" if invalid_reason else "enabled"


def _existing(found: list[dict[str, Any]], names: "list[str] | tuple[str, ...]") -> list[dict[str, Any]]:
    if missing := sorted(set(names) - {row["name"] for row in found}):
        raise ConfigError(f"pipeline {', '.join(missing)} does not exist; list them: relay pipeline list")
    return found


def _read(source: str) -> str:
    """The text behind `JSON`, `@FILE` or `-`."""
    if source == "-":
        return sys.stdin.read()
    if not source.startswith("@"):
        return source
    try:
        return Path(source[1:]).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source[1:]} cannot be read: {error}") from error


def _parse(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"the configuration is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    if not isinstance(value, dict):
        raise ConfigError(f"the configuration must be a JSON object, not {type(value).__name__}")
    return value
