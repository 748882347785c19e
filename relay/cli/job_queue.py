"""`relay jobs queue ...`: create, list, show, change, pause and drop queues of jobs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from relay.cli.base import (
    Verbs,
    database,
    json_option,
    library_option,
    load_settings,
    postgres_option,
    print_json,
    print_list,
    say,
    shown,
)
from relay.cli.tables import Column, Table
from relay.cli.values import json_value, require_yes
from relay.operations import job_queues as operations
from relay.operations.job_queues import Queue

_HELP = """Creates, changes, pauses and drops queues of jobs.

\b
Example:
  relay jobs queue create mail --concurrency-limit 20
  relay jobs queue pause mail
"""

queue = Verbs("queue", _HELP)

_name = click.argument("name")


def _limit(_ctx: click.Context, param: click.Parameter, value: str | None) -> float | str | None:
    """A number; `none` for no limit."""
    if value is None or value == "none":
        return value
    try:
        number = float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a number; none: no limit", param=param) from None
    return int(number) if number.is_integer() else number


def _settings(command: Any) -> Any:
    """The settings of a queue; what is not given is None."""
    for flag, text in (
        ("--max-payload-bytes", "The largest job."),
        ("--dead-retention-hours", "How long dead jobs are kept; at first 720."),
        ("--retention-hours", "How long jobs that have ended are kept; at first 168."),
    ):
        command = click.option(flag, type=click.IntRange(0), metavar="N", help=text)(command)
    command = click.option("--config", callback=json_value, metavar="JSON", help="An object: brokers of the hand-off.")(
        command
    )
    command = click.option(
        "--keep-succeeded/--forget-succeeded", default=None, help="Whether to write attempts that succeeded."
    )(command)
    command = click.option("--fair/--strict", default=None, help="Whether lower priorities get an eighth of the work.")(
        command
    )
    command = library_option(command)
    for flag, text in (
        ("--burst", "How many may begin at once after a pause, under --rate."),
        ("--rate", "How many begin in a second."),
        ("--key-limit", "How many of one run key run at a time."),
        ("--concurrency-limit", "How many run at a time."),
    ):
        command = click.option(flag, callback=_limit, metavar="N", help=f"{text} none: no limit.")(command)
    return command


def _given(queue: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Raises ConfigError for a configuration that no worker could use."""
    given = {name: None if value == "none" else value for name, value in settings.items() if value is not None}
    library_on_workers = bool(given.pop("library_on_workers", False))
    if "config" in given:
        operations.check_config(queue, given["config"], library_on_workers=library_on_workers)
    return given


@queue.command()
@_name
@_settings
@postgres_option
def create(name: str, postgres_url: str | None, **settings: Any) -> None:
    """Creates a queue. Limits are over the whole fleet.

    \b
    Exit codes: 0 created; 1 it exists already, or an error; 2 wrong usage.

    \b
    Example:
      relay jobs queue create imports --concurrency-limit 8 --key-limit 1
    """
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        operations.create(connection, name, _given(name, settings))
    say(f"created queue {name}")


@queue.command("set")
@_name
@_settings
@postgres_option
def change(name: str, postgres_url: str | None, **settings: Any) -> None:
    """Changes settings of a queue. What is not given stays as it is.

    \b
    Exit codes: 0 changed; 1 no such queue, or refused; 2 wrong usage.

    \b
    Example:
      relay jobs queue set imports --concurrency-limit none --rate 5
    """
    given = _given(name, settings)
    if not given:
        raise click.UsageError("give what to change, such as --concurrency-limit 8")
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        operations.change(connection, name, given)
    say(f"changed {', '.join(given)} of queue {name}")


@queue.command("list")
@postgres_option
@json_option
def list_queues(postgres_url: str | None, as_json: bool) -> None:
    """Lists the queues with their settings. What they hold: relay jobs stats.

    \b
    Exit codes: 0 listed, also if there are none; 1 an error; 2 wrong usage.

    \b
    Example:
      relay jobs queue list --json
    """
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        found = operations.list_queues(connection)
    print_list(found, _table, as_json=as_json, none="there are no queues; create one: relay jobs queue create NAME")


def _table(found: Sequence[Queue]) -> Table:
    table = Table(
        Column("queue"),
        Column("state", whole=True),
        Column("limit", number=True),
        Column("per key", number=True),
        Column("per second", number=True),
        Column("keeps (h)", number=True),
        Column("keeps dead (h)", number=True),
        Column("reason", long=True),
    )
    for one in found:
        state = shown("paused", "yellow") if one.paused else shown("invalid", "red") if one.invalid_reason else "active"
        limits = [str(limit or "") for limit in (one.concurrency_limit, one.key_limit, one.rate)]
        table.add_row(
            one.queue, state, *limits, str(one.retention_hours), str(one.dead_retention_hours), one.invalid_reason or ""
        )
    return table


@queue.command()
@_name
@postgres_option
def show(name: str, postgres_url: str | None) -> None:
    """Shows the settings of a queue, as JSON.

    \b
    Exit codes: 0 shown; 1 no such queue, or an error; 2 wrong usage.

    \b
    Example:
      relay jobs queue show mail
    """
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        print_json(asdict(operations.show(connection, name)))


@queue.command()
@_name
@postgres_option
def pause(name: str, postgres_url: str | None) -> None:
    """Pauses a queue: no job of it begins any more. Those that run go on, and jobs can be enqueued.

    \b
    Exit codes: 0 paused; 1 no such queue, or an error; 2 wrong usage.

    \b
    Example:
      relay jobs queue pause mail
    """
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        operations.pause(connection, name)
    say(f"paused queue {name}")


@queue.command()
@_name
@postgres_option
def resume(name: str, postgres_url: str | None) -> None:
    """Resumes a queue that was paused.

    \b
    Exit codes: 0 resumed; 1 no such queue, or an error; 2 wrong usage.

    \b
    Example:
      relay jobs queue resume mail
    """
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        operations.resume(connection, name)
    say(f"resumed queue {name}")


@queue.command()
@_name
@click.option("--force", is_flag=True, help="Also if jobs wait or run: they go with it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@postgres_option
def drop(name: str, force: bool, yes: bool, postgres_url: str | None) -> None:
    """Removes a queue with its jobs and their history. Asks first at a terminal; elsewhere it needs --yes.

    \b
    Exit codes: 0 removed; 1 no such queue, jobs wait or run, or not confirmed; 2 wrong usage.

    \b
    Example:
      relay jobs queue drop imports --yes
    """
    require_yes(f"removes queue {name} with its jobs and their history", yes)
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        operations.drop(connection, name, force=force)
    say(f"removed queue {name}")
