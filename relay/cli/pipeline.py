"""`relay pipeline ...`: list, show, set, enable, disable, delete and validate pipelines."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from relay.cli.base import (
    FAILED,
    Verbs,
    confirm,
    database,
    json_option,
    library_option,
    load_settings,
    postgres_option,
    print_json,
    print_list,
    say,
    tell,
)
from relay.cli.from_table import from_table_options, routed_table
from relay.cli.tables import Column, Table
from relay.errors import ConfigError
from relay.operations import pipelines
from relay.operations.pipelines import Pipeline, Validation

_HELP = """Lists, shows, changes and checks pipelines. Secrets are masked in everything that is printed.

\b
Example:
  relay pipeline set to-nats orders --config '{"sink_type": "nats", "url": "nats://localhost:4222", "stream": "orders"}'
  relay pipeline set from-file commands --config @file.json
  relay pipeline list
"""

pipeline = Verbs("pipeline", _HELP)


@pipeline.command("list")
@postgres_option
@json_option
def list_pipelines(postgres_url: str | None, as_json: bool) -> None:
    """Lists the pipelines.

    \b
    Exit codes: 0 listed, also if there are none; 1 an error; 2 wrong usage.

    \b
    Example:
      relay pipeline list --json
    """
    with database(load_settings(postgres_url=postgres_url), "pipeline") as connection:
        found = pipelines.list_pipelines(connection)
    print_list(
        found,
        _table,
        as_json=as_json,
        none="there are no pipelines; create one: relay pipeline set NAME OUTBOX|INBOX --config JSON",
    )


def _table(found: Sequence[Pipeline]) -> Table:
    table = Table(
        Column("pipeline"),
        Column("from"),
        Column("to"),
        Column("group"),
        Column("state", whole=True),
        Column("reason", long=True),
    )
    for pipeline in found:
        origin = pipeline.outbox or str(pipeline.config.get("source_type", ""))
        destination = pipeline.inbox or str(pipeline.config.get("sink_type", ""))
        group = pipeline.consumer_group or ""
        table.add_row(pipeline.name, origin, destination, group, pipeline.state, pipeline.reason or "")
    return table


@pipeline.command()
@click.argument("name")
@postgres_option
def show(name: str, postgres_url: str | None) -> None:
    """Shows one pipeline as JSON: its configuration, outbox and consumer group or inbox, and state.

    \b
    Exit codes: 0 shown; 1 it does not exist, or an error; 2 wrong usage.

    \b
    Example:
      relay pipeline show to-nats
    """
    with database(load_settings(postgres_url=postgres_url), "pipeline") as connection:
        print_json(asdict(pipelines.show(connection, name)))


@pipeline.command("set")
@click.argument("name")
@click.argument("box", metavar="[OUTBOX|INBOX]", required=False)
@click.option("--config", required=True, metavar="JSON|@FILE|-", help="The configuration; @FILE or - (standard input).")
@click.option("--group", metavar="G", help="Consumer group.  [default: the one it has, else the pipeline's name]")
@from_table_options
@click.option("--enabled/--disabled", default=None, help="Starts it, or leaves it stopped.  [default: see above]")
@click.option("--dry-run", is_flag=True, help="Only check whether it could be set: tries everything, and undoes it.")
@library_option
@postgres_option
def set_pipeline(
    name: str, box: str | None, config: str, group: str | None, enabled: bool | None, dry_run: bool,
    library_on_workers: bool,
    postgres_url: str | None, **table: Any,
) -> None:  # fmt: skip
    """Creates the pipeline NAME, or changes it: from OUTBOX to a sink, or from a source to INBOX.

    The configuration has a sink_type or a source_type. It is checked first, and so is whether its client library is
    installed here; what is refused changes nothing. It takes effect within a second. A new pipeline is enabled, unless
    --disabled is given; another stays enabled or disabled. A forward one begins at the oldest message that is kept. A
    change of --group or OUTBOX discards the old offset. Write secrets as ${env:TIDE_SECRET_NAME} or ${file:PATH}.

    \b
    Exit codes: 0 set; 1 refused, or an error; 2 wrong usage.

    \b
    Example:
      relay pipeline set to-file orders --config '{"sink_type": "file", "path": "/var/lib/tide-relay/out/orders.jsonl"}'
      relay pipeline set to-nats orders --config @nats.json --group billing
      relay pipeline set to-nats orders --config @nats.json --disabled
      relay pipeline set from-file commands --config @file.json
      relay pipeline set to-kafka --from-table public.outbox --config @kafka.json
    """
    try:
        definition = pipelines.define(_read(config), library_on_workers=library_on_workers)
    except ConfigError as error:
        raise ConfigError(f"pipeline {name} was not set: {error}") from error
    reverse = definition.direction == "reverse"
    routed = routed_table(**table)
    if reverse and (group or routed):
        raise click.UsageError("--group, --from-table are for forward pipelines: a reverse one has no consumer group")
    if box is None and routed is None:
        raise click.UsageError("name the OUTBOX or the INBOX, or a table: --from-table")
    with database(load_settings(postgres_url=postgres_url), "pipeline") as connection:
        box = pipelines.set_pipeline(
            connection, name, box, definition, group=group, table=routed, enabled=enabled, dry_run=dry_run
        )
    if definition.has_plain_secret:
        tell("the configuration holds a secret in plain text, which everyone who may read the table can see; "
             "better: ${env:TIDE_SECRET_NAME} or ${file:PATH}")  # fmt: skip
    done = "could be set" if dry_run else "is set"
    origin = f"table {routed.table}, " if routed else ""
    say(f"pipeline {name} {done}, {'into inbox' if reverse else f'from {origin}outbox'} {box}")
    if enabled is False and not dry_run:
        tell(f"it is disabled; start it: relay pipeline enable {name}")


@pipeline.command()
@click.argument("name")
@postgres_option
def enable(name: str, postgres_url: str | None) -> None:
    """Lets a pipeline run; it continues where it stopped.

    \b
    Exit codes: 0 done; 1 it does not exist, or an error; 2 wrong usage.

    \b
    Example:
      relay pipeline enable to-nats
    """
    with database(load_settings(postgres_url=postgres_url), "pipeline") as connection:
        pipelines.enable(connection, name)
    say(f"pipeline {name} is enabled")


@pipeline.command()
@click.argument("name")
@postgres_option
def disable(name: str, postgres_url: str | None) -> None:
    """Stops a pipeline after its current batch. It keeps its offset.

    \b
    Exit codes: 0 done; 1 it does not exist, or an error; 2 wrong usage.

    \b
    Example:
      relay pipeline disable to-nats
    """
    with database(load_settings(postgres_url=postgres_url), "pipeline") as connection:
        pipelines.disable(connection, name)
    say(f"pipeline {name} is disabled")


@pipeline.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@postgres_option
def delete(name: str, yes: bool, postgres_url: str | None) -> None:
    """Removes a pipeline and its offset. Asks first at a terminal; elsewhere it needs --yes.

    \b
    Exit codes: 0 removed; 1 it does not exist, not confirmed, or an error; 2 wrong usage.

    \b
    Example:
      relay pipeline delete to-nats --yes
    """
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"this deletes pipeline {name} and its offset: give --yes to confirm")
        if not confirm(f"Delete pipeline {name} and its offset?"):
            raise ConfigError("nothing was deleted")
    with database(load_settings(postgres_url=postgres_url), "pipeline") as connection:
        pipelines.delete(connection, name)
    say(f"pipeline {name} is deleted")


@pipeline.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--file", "files", multiple=True, metavar="F", help="A configuration in a file, or -; uses no database.")
@library_option
@postgres_option
@json_option
@click.pass_context
def validate(
    ctx: click.Context, names: tuple[str, ...], files: tuple[str, ...], library_on_workers: bool,
    postgres_url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Checks the configurations of all pipelines, of those named, or in files. Names every invalid key.

    \b
    Exit codes: 0 all are valid; 1 one is not, or an error; 2 wrong usage.

    \b
    Example:
      relay pipeline validate
      relay pipeline validate --file nats.json
    """
    if names and files:
        raise click.UsageError("give names or --file, not both")
    found = _from_files(files, library_on_workers) if files else _from_database(names, postgres_url, library_on_workers)
    if as_json:
        print_json([asdict(validation) for validation in found])
    else:
        for validation in found:
            say(f"{validation.name}: {'valid' if validation.valid else f'invalid: {validation.reason}'}")
    ctx.exit(0 if all(validation.valid for validation in found) else FAILED)


def _from_files(files: tuple[str, ...], library_on_workers: bool) -> list[Validation]:
    found = []
    for file in files:
        try:
            text = _read(file if file == "-" else f"@{file}")
            found.append(pipelines.validate_text(file, text, library_on_workers=library_on_workers))
        except ConfigError as error:
            found.append(Validation(file, False, str(error)))
    return found


def _from_database(names: tuple[str, ...], postgres_url: str | None, library_on_workers: bool) -> list[Validation]:
    with database(load_settings(postgres_url=postgres_url), "pipeline") as connection:
        return pipelines.validate(connection, names, library_on_workers=library_on_workers)


def _read(source: str) -> str:
    """The text behind `JSON`, `@FILE` or `-`."""
    if source == "-":
        return sys.stdin.read()
    if not source.startswith("@"):
        return source
    try:
        return Path(source[1:]).read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{source[1:]} cannot be read: {error.strerror}; correct the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source[1:]} is not UTF-8 text; write the configuration in UTF-8") from error
