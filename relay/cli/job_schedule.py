"""`relay jobs schedule ...`: set, list, enable, disable and delete schedules of jobs."""

from collections.abc import Callable, Sequence
from typing import Any

import click

from relay.cli.base import (
    Verbs,
    database,
    json_option,
    load_settings,
    postgres_option,
    print_list,
    say,
    shown,
)
from relay.cli.job_look import job_options
from relay.cli.tables import Column, Table
from relay.cli.values import require_yes, time_text
from relay.operations import job_schedules as operations
from relay.operations.base import Connection
from relay.operations.job_schedules import Schedule
from relay.operations.jobs import NewJob

_HELP = """Sets, lists, enables, disables and deletes schedules, which enqueue jobs at their times.

\b
Example:
  relay jobs schedule set nightly reports build '{"days": 1}' --cron '30 2 * * *' --time-zone Europe/Berlin
  relay jobs schedule list
"""

schedule = Verbs("schedule", _HELP)

_name = click.argument("name")


@schedule.command("set")
@_name
@click.argument("queue")
@click.argument("job")
@job_options
@click.option("--cron", required=True, metavar="EXPR", help="Minute, hour, day of month, month, day of week.")
@click.option("--time-zone", default="UTC", metavar="ZONE", help="Of the expression, such as Europe/Berlin.")
@click.option(
    "--missed",
    type=click.Choice(("one", "all", "skip")),
    default="one",
    help="For ticks that no scheduler was there for: one job (default), all, or none.",
)
@postgres_option
def set_schedule(
    name: str, queue: str, job: str, cron: str, time_zone: str, missed: str, postgres_url: str | None, **given: Any
) -> None:
    """Creates or changes the schedule NAME, which enqueues a JOB in QUEUE at each tick, with JSON as its payload.

    \b
    Exit codes: 0 set; 1 no such queue, or refused; 2 wrong usage.

    \b
    Example:
      relay jobs schedule set nightly reports build '{"days": 1}' --cron '30 2 * * *' --time-zone Europe/Berlin
    """
    new = NewJob(queue, job, **given)
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        changed = operations.set_schedule(connection, name, cron, new, time_zone=time_zone, missed=missed)
    say(f"set schedule {name}" if changed else f"schedule {name} is so already")


@schedule.command("list")
@postgres_option
@json_option
def list_schedules(postgres_url: str | None, as_json: bool) -> None:
    """Lists the schedules: when each fires next, and when it did last.

    \b
    Exit codes: 0 listed, also if there are none; 1 an error; 2 wrong usage.

    \b
    Example:
      relay jobs schedule list --json
    """
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        found = operations.list_schedules(connection)
    print_list(
        found,
        _table,
        as_json=as_json,
        none="there are no schedules; create one: relay jobs schedule set NAME QUEUE JOB --cron EXPR",
    )


def _table(found: Sequence[Schedule]) -> Table:
    table = Table(
        Column("schedule"),
        Column("state", whole=True),
        Column("queue"),
        Column("job"),
        Column("cron"),
        Column("time zone"),
        Column("next", whole=True),
        Column("last", whole=True, minor=True),
        Column("reason", long=True),
    )
    for one in found:
        state = (
            shown("invalid", "red") if one.invalid_reason else "enabled" if one.enabled else shown("disabled", "dim")
        )
        table.add_row(
            one.schedule, state, one.queue, one.name, one.cron, one.time_zone, time_text(one.next_at),
            time_text(one.last_at), one.invalid_reason or "",
        )  # fmt: skip
    return table


@schedule.command()
@_name
@postgres_option
def enable(name: str, postgres_url: str | None) -> None:
    """Enables a schedule. Its next time is counted from now.

    \b
    Exit codes: 0 enabled; 1 no such schedule, or an error; 2 wrong usage.

    \b
    Example:
      relay jobs schedule enable nightly
    """
    _do(postgres_url, operations.enable, name, "enabled")


@schedule.command()
@_name
@postgres_option
def disable(name: str, postgres_url: str | None) -> None:
    """Disables a schedule: it enqueues nothing until you enable it.

    \b
    Exit codes: 0 disabled; 1 no such schedule, or an error; 2 wrong usage.

    \b
    Example:
      relay jobs schedule disable nightly
    """
    _do(postgres_url, operations.disable, name, "disabled")


@schedule.command()
@_name
@click.option("--yes", is_flag=True, help="Do not ask.")
@postgres_option
def delete(name: str, yes: bool, postgres_url: str | None) -> None:
    """Deletes a schedule. Jobs that it has enqueued stay. Asks first at a terminal; elsewhere it needs --yes.

    \b
    Exit codes: 0 deleted; 1 no such schedule, or not confirmed; 2 wrong usage.

    \b
    Example:
      relay jobs schedule delete nightly --yes
    """
    require_yes(f"deletes schedule {name}", yes)
    _do(postgres_url, operations.delete, name, "deleted")


def _do(postgres_url: str | None, operation: Callable[[Connection, str], None], name: str, what: str) -> None:
    with database(load_settings(postgres_url=postgres_url), "jobs") as connection:
        operation(connection, name)
    say(f"{what} schedule {name}")
