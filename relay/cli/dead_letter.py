"""`relay dead-letter ...`: what was refused for good, and what is to become of it."""

import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from relay.cli.base import Verbs, database, json_option, load_settings, output, postgres_option, print_json, rows, tell
from relay.cli.dead_letter_json import whole
from relay.database.connection import Connection
from relay.errors import ConfigError
from relay.masking import mask
from relay.operations.redelivery import LARGEST_ID, configured, require_known, require_redelivering

PAGE = 1000

_HELP = """Messages that a sink refused for good, or that no inbox can hold: shows, retries and discards them.

\b
Example:
  relay dead-letter list to-nats
  relay dead-letter show 17
  relay dead-letter retry --pipeline to-nats
"""

dead_letter = Verbs("dead-letter", _HELP)


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _age(_ctx: click.Context, _param: click.Parameter, value: str | None) -> timedelta | None:
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,6})([smhd])", value, re.ASCII)
    if not found:
        raise click.BadParameter(f"{value!r} is no age: seconds, minutes, hours or days, such as 90s, 30m, 12h or 7d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


_ID = click.IntRange(1, LARGEST_ID)
_ids = click.argument("ids", nargs=-1, type=_ID, metavar="[ID]...")


@dead_letter.command("list")
@click.argument("pipeline", required=False)
@click.option("--code", metavar="C", help="Only those with this code.")
@click.option("--limit", type=click.IntRange(1), default=100, metavar="N", help="At most so many; default 100.")
@click.option("--after", type=click.IntRange(0, LARGEST_ID), default=0, metavar="ID", help="Only those above this id.")
@postgres_option
@json_option
def list_dead_letters(
    pipeline: str | None, code: str | None, limit: int, after: int, postgres_url: str | None, as_json: bool
) -> None:
    """Lists dead letters in the order of their ids, of one pipeline or of all; with --json each one whole.

    \b
    Exit codes: 0 listed, also if there are none; 1 no such pipeline, or cannot; 2 wrong usage.

    \b
    Example:
      relay dead-letter list
      relay dead-letter list to-nats --code too_large --limit 10 --json
    """
    with database(load_settings(postgres_url=postgres_url), "dead-letter") as connection:
        found = _listed(connection, pipeline, code, limit + 1, after)
        if not found:
            require_known(connection, pipeline)
        if as_json:
            _print_whole(connection, found[:limit])
        elif not found:
            tell("there are no dead letters")
        else:
            output().print(_table(found[:limit]))
    if len(found) > limit:
        tell(f"there are more: go on with --after {found[limit - 1]['dead_letter_id']}")


def _listed(
    connection: Connection, pipeline: str | None, code: str | None, limit: int, after: int
) -> list[dict[str, Any]]:
    """At most `limit`, read in pages, because the database does not choose by code."""
    found: list[dict[str, Any]] = []
    page_rows = PAGE if code else min(limit, PAGE)
    while len(found) < limit:
        page = rows(connection, "dead_letter_list", pipeline=pipeline, after_id=after, max_rows=page_rows)
        found += [row for row in page if code in (None, row["code"])]
        if len(page) < page_rows:
            break
        after = page[-1]["dead_letter_id"]
    return found[:limit]


def _table(found: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("id", "pipeline", "message", "code", "attempts", "last refused", "retry", "reason"):
        number = title in ("id", "attempts")
        table.add_column(title, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in found:
        table.add_row(
            str(row["dead_letter_id"]), row["pipeline"], Text(row["message"]), Text(row["code"]), str(row["attempts"]),
            f"{row['failed_at']:%Y-%m-%d %H:%M:%S}", "asked for" if row["retry_requested_at"] else "",
            Text(mask(row["reason"])),
        )  # fmt: skip
    return table


def _print_whole(connection: Connection, found: Sequence[dict[str, Any]]) -> None:
    """One after the other, so that only one payload at a time is in memory."""
    click.echo("[", nl=False)
    separator = "\n"
    for row in found:
        # It may have been delivered, or discarded, since it was listed.
        for letter in rows(connection, "dead_letter_show", dead_letter_id=row["dead_letter_id"]):
            click.echo(separator + whole(letter), nl=False)
            separator = ",\n"
    click.echo("\n]" if found else "]")


@dead_letter.command()
@click.argument("dead_letter_id", type=_ID, metavar="ID")
@postgres_option
def show(dead_letter_id: int, postgres_url: str | None) -> None:
    """Shows everything that is kept of one, as JSON. A message that was received has body, or body_base64.

    \b
    Exit codes: 0 shown; 1 there is none, or cannot; 2 wrong usage.

    \b
    Example:
      relay dead-letter show 17
      relay dead-letter show 17 | jq .payload
    """
    with database(load_settings(postgres_url=postgres_url), "dead-letter") as connection:
        click.echo(whole(_one(connection, dead_letter_id)))


@dead_letter.command()
@_ids
@click.option("--pipeline", metavar="P", help="All dead letters of this pipeline.")
@postgres_option
def retry(ids: tuple[int, ...], pipeline: str | None, postgres_url: str | None) -> None:
    """Has the pipeline itself send dead letters again, after its live messages. Refused again, one stays.

    Either all that are named are asked for, or none. The verb does not wait: see relay dead-letter list.

    \b
    Exit codes: 0 asked for; 1 one is not there or nobody can retry it, nothing was asked for; 2 wrong usage.

    \b
    Example:
      relay dead-letter retry 17 18
      relay dead-letter retry --pipeline to-nats
    """
    _one_of(ids, pipeline)
    with database(load_settings(postgres_url=postgres_url), "dead-letter") as connection, connection.transaction():
        pipelines = [pipeline] if pipeline else sorted({_one(connection, number)["pipeline"] for number in ids})
        for name in pipelines:
            require_redelivering(connection, name)
        if pipeline:
            [asked] = rows(connection, "dead_letter_retry_all", pipeline=pipeline)
            count = asked["asked"]
        else:
            count = len([rows(connection, "dead_letter_retry", dead_letter_id=number) for number in dict.fromkeys(ids)])
        disabled = [name for name in pipelines if not configured(connection, name)["enabled"]]
    click.echo(f"asked {', '.join(pipelines)} to deliver {_count(count)} once more")
    for name in disabled:
        tell(f"pipeline {name} is disabled, and does it when it is enabled: relay pipeline enable {name}")


@dead_letter.command()
@_ids
@click.option("--pipeline", metavar="P", help="All dead letters of this pipeline.")
@click.option(
    "--older-than", callback=_age, metavar="AGE", help="With --pipeline: only those last refused so long ago."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@postgres_option
def discard(
    ids: tuple[int, ...], pipeline: str | None, older_than: timedelta | None, yes: bool, postgres_url: str | None
) -> None:
    """Forgets dead letters for good. Asks first, at a terminal; elsewhere it needs --yes. AGE: 90s, 30m, 12h, 7d.

    \b
    Exit codes: 0 discarded; 1 one is not there, or not confirmed, nothing was discarded; 2 wrong usage.

    \b
    Example:
      relay dead-letter discard 17 --yes
      relay dead-letter discard --pipeline to-nats --older-than 7d --yes
    """
    _one_of(ids, pipeline)
    if older_than is not None and not pipeline:
        raise click.UsageError("--older-than is for --pipeline")
    numbers = list(dict.fromkeys(ids))
    what = f"the dead letters of pipeline {pipeline}" if pipeline else f"dead letter {', '.join(map(str, numbers))}"
    _confirm(f"{what}{f', refused {older_than} ago or earlier' if older_than else ''}", yes)
    with database(load_settings(postgres_url=postgres_url), "dead-letter") as connection, connection.transaction():
        if pipeline:
            age = older_than or timedelta()
            [purged] = rows(connection, "dead_letter_purge", pipeline=pipeline, older_than=age)
            count = purged["purged"]
        else:
            count = len([rows(connection, "dead_letter_discard", dead_letter_id=number) for number in numbers])
    click.echo(f"discarded {_count(count)}")


@dead_letter.command()
@click.argument("pipeline", required=False)
@postgres_option
@json_option
def stats(pipeline: str | None, postgres_url: str | None, as_json: bool) -> None:
    """Counts dead letters by pipeline and by the code of what was wrong.

    \b
    Exit codes: 0 counted, also if there are none; 1 no such pipeline, or cannot; 2 wrong usage.

    \b
    Example:
      relay dead-letter stats
    """
    with database(load_settings(postgres_url=postgres_url), "dead-letter") as connection:
        found = rows(connection, "dead_letter_stats", pipeline=pipeline)
        if not found:
            require_known(connection, pipeline)
    if as_json:
        print_json(found)
    elif not found:
        tell("there are no dead letters")
    else:
        table = Table(box=None, pad_edge=False)
        for title in ("pipeline", "code", "dead letters", "retrying", "most attempts", "first refused", "last refused"):
            table.add_column(title, justify="left" if title in ("pipeline", "code") else "right")
        for row in found:
            times = [f"{row[name]:%Y-%m-%d %H:%M:%S}" for name in ("oldest_at", "newest_at")]
            counts = [str(row[name]) for name in ("dead_letters", "retrying", "most_attempts")]
            table.add_row(row["pipeline"], Text(row["code"]), *counts, *times)
        output().print(table)


def _one(connection: Connection, dead_letter_id: int) -> dict[str, Any]:
    found = rows(connection, "dead_letter_show", dead_letter_id=dead_letter_id)
    if not found:
        raise ConfigError(f"dead letter {dead_letter_id} does not exist: it may have been delivered or discarded; "
                          "see relay dead-letter list")  # fmt: skip
    return found[0]


def _one_of(ids: Sequence[int], pipeline: str | None) -> None:
    if bool(ids) == bool(pipeline):
        raise click.UsageError("name dead letters by their ids, or give --pipeline: one of the two")


def _confirm(what: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{what} would be lost for good: give --yes to discard them")
    if not click.confirm(f"Forget {what} for good?", err=True):
        raise ConfigError("nothing was discarded")


def _count(number: int) -> str:
    return "1 dead letter" if number == 1 else f"{number} dead letters"
