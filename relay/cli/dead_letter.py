"""`relay dead-letter ...`: list, show, retry, discard and count dead letters."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta

import click

from relay.cli.base import (
    Verbs,
    confirm,
    database,
    json_option,
    load_settings,
    output,
    postgres_option,
    print_json,
    print_json_text,
    say,
    tell,
)
from relay.cli.dead_letter_json import as_json_text
from relay.cli.tables import Column, Table
from relay.cli.values import age
from relay.errors import ConfigError
from relay.operations import dead_letters
from relay.operations.base import LARGEST_ID, Connection, counted
from relay.operations.dead_letters import Summary

_HELP = """Shows, retries and discards messages that a sink refused permanently, or that no inbox can hold.

\b
Example:
  relay dead-letter list to-nats
  relay dead-letter show 17
  relay dead-letter retry --pipeline to-nats
"""

dead_letter = Verbs("dead-letter", _HELP)


_ID = click.IntRange(1, LARGEST_ID)
_ids = click.argument("ids", nargs=-1, type=_ID, metavar="[ID]...")


@dead_letter.command("list")
@click.argument("pipeline", required=False)
@click.option("--code", metavar="C", help="Only those with this code.")
@click.option("--limit", type=click.IntRange(1), default=100, metavar="N", help="How many at most; default 100.")
@click.option("--after", type=click.IntRange(0, LARGEST_ID), default=0, metavar="ID", help="Only with a higher id.")
@postgres_option
@json_option
def list_dead_letters(
    pipeline: str | None, code: str | None, limit: int, after: int, postgres_url: str | None, as_json: bool
) -> None:
    """Lists the dead letters of one pipeline or of all, by id; with --json in full.

    \b
    Exit codes: 0 listed, also if there are none; 1 no such pipeline, or an error; 2 wrong usage.

    \b
    Example:
      relay dead-letter list
      relay dead-letter list to-nats --code too_large --limit 10 --json
    """
    with database(load_settings(postgres_url=postgres_url), "dead-letter") as connection:
        page = dead_letters.list_dead_letters(connection, pipeline, code=code, limit=limit, after_id=after)
        if as_json:
            _print_json(connection, page.dead_letters)
        elif not page.dead_letters:
            tell("there are no dead letters")
        else:
            output().print(_table(page.dead_letters))
    if page.next_after_id is not None:
        tell(f"there are more: continue with --after {page.next_after_id}")


def _table(found: Sequence[Summary]) -> Table:
    table = Table(
        Column("id", number=True),
        Column("pipeline"),
        Column("message"),
        Column("code"),
        Column("attempts", number=True),
        Column("last refused", whole=True),
        Column("retry", whole=True),
        Column("reason", long=True),
    )
    for letter in found:
        table.add_row(
            str(letter.dead_letter_id), letter.pipeline, letter.message, letter.code, str(letter.attempts),
            f"{letter.failed_at:%Y-%m-%d %H:%M:%S}", "requested" if letter.retry_requested_at else "", letter.reason,
        )  # fmt: skip
    return table


def _print_json(connection: Connection, found: Sequence[Summary]) -> None:
    """One after the other, so that only one payload at a time is in memory."""
    print_json_text("[", end=False)
    separator = "\n"
    for letter in dead_letters.read_each(connection, [summary.dead_letter_id for summary in found]):
        print_json_text(separator + as_json_text(letter), end=False)
        separator = ",\n"
    print_json_text("\n]" if found else "]")


@dead_letter.command()
@click.argument("dead_letter_id", type=_ID, metavar="ID")
@postgres_option
def show(dead_letter_id: int, postgres_url: str | None) -> None:
    """Shows one dead letter in full, as JSON. A message that was received has body, or body_base64.

    \b
    Exit codes: 0 shown; 1 it does not exist, or an error; 2 wrong usage.

    \b
    Example:
      relay dead-letter show 17
      relay dead-letter show 17 | jq .payload
    """
    with database(load_settings(postgres_url=postgres_url), "dead-letter") as connection:
        print_json_text(as_json_text(dead_letters.show(connection, dead_letter_id)))


@dead_letter.command()
@_ids
@click.option("--pipeline", metavar="P", help="All dead letters of this pipeline.")
@postgres_option
def retry(ids: tuple[int, ...], pipeline: str | None, postgres_url: str | None) -> None:
    """Has the pipeline deliver dead letters again, after its live messages. One that is refused again stays.

    All that you name are requested, or none. The verb does not wait for them: see relay dead-letter list.

    \b
    Exit codes: 0 requested; 1 one does not exist or cannot be retried, nothing was requested; 2 wrong usage.

    \b
    Example:
      relay dead-letter retry 17 18
      relay dead-letter retry --pipeline to-nats
    """
    _one_of(ids, pipeline)
    with database(load_settings(postgres_url=postgres_url), "dead-letter") as connection:
        asked = dead_letters.retry_all(connection, pipeline) if pipeline else dead_letters.retry(connection, ids)
    say(f"asked {', '.join(asked.pipelines)} to deliver {counted(asked.dead_letters, 'dead letter')} again")
    for name in asked.disabled:
        tell(f"pipeline {name} is disabled; it delivers them when you enable it: relay pipeline enable {name}")


@dead_letter.command()
@_ids
@click.option("--pipeline", metavar="P", help="All dead letters of this pipeline.")
@click.option(
    "--older-than", callback=age, metavar="AGE", help="With --pipeline: only those last refused this long ago."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@postgres_option
def discard(
    ids: tuple[int, ...], pipeline: str | None, older_than: timedelta | None, yes: bool, postgres_url: str | None
) -> None:
    """Deletes dead letters permanently. Asks first at a terminal; elsewhere it needs --yes. AGE: 90s, 30m, 12h, 7d.

    \b
    Exit codes: 0 discarded; 1 one does not exist, or not confirmed, nothing was discarded; 2 wrong usage.

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
    _confirm(f"{what}{f', last refused {older_than} ago or earlier' if older_than else ''}", yes)
    with database(load_settings(postgres_url=postgres_url), "dead-letter") as connection:
        if pipeline:
            count = dead_letters.discard_all(connection, pipeline, older_than or timedelta())
        else:
            count = dead_letters.discard(connection, ids)
    say(f"discarded {counted(count, 'dead letter')}")


@dead_letter.command()
@click.argument("pipeline", required=False)
@postgres_option
@json_option
def stats(pipeline: str | None, postgres_url: str | None, as_json: bool) -> None:
    """Counts dead letters by pipeline and code.

    \b
    Exit codes: 0 counted, also if there are none; 1 no such pipeline, or an error; 2 wrong usage.

    \b
    Example:
      relay dead-letter stats
    """
    with database(load_settings(postgres_url=postgres_url), "dead-letter") as connection:
        found = dead_letters.stats(connection, pipeline)
    if as_json:
        print_json([asdict(count) for count in found])
    elif not found:
        tell("there are no dead letters")
    else:
        table = Table(
            Column("pipeline"),
            Column("code"),
            Column("dead letters", number=True),
            Column("retrying", number=True),
            Column("most attempts", number=True),
            Column("first refused", whole=True),
            Column("last refused", whole=True),
        )
        for row in found:
            times = [f"{moment:%Y-%m-%d %H:%M:%S}" for moment in (row.oldest_at, row.newest_at)]
            counts = [str(number) for number in (row.dead_letters, row.retrying, row.most_attempts)]
            table.add_row(row.pipeline, row.code, *counts, *times)
        output().print(table)


def _one_of(ids: Sequence[int], pipeline: str | None) -> None:
    if bool(ids) == bool(pipeline):
        raise click.UsageError("give the ids of dead letters, or --pipeline: one of the two")


def _confirm(what: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"this deletes {what} permanently: give --yes to confirm")
    if not confirm(f"Delete {what} permanently?"):
        raise ConfigError("nothing was discarded")
