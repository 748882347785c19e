"""`relay replay` and `relay replays`: a pipeline delivers messages of its outbox again."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import click

from relay.cli.base import (
    Verb,
    Verbs,
    database,
    json_option,
    load_settings,
    postgres_option,
    print_json,
    print_list,
    say,
    tell,
)
from relay.cli.tables import Column, Table
from relay.cli.values import moment
from relay.operations import replays as operations
from relay.operations.base import LARGEST_ID, Connection, counted
from relay.operations.replays import Preview, Replay

_ID = click.IntRange(1, LARGEST_ID)


@click.command(cls=Verb, short_help="Delivers messages again.")
@click.argument("pipeline")
@click.argument("from_id", type=_ID, metavar="[FROM]", required=False)
@click.argument("to_id", type=_ID, metavar="[TO]", required=False)
@click.option("--since", callback=moment, metavar="TIME", help="Instead of FROM: 2030-01-31T12:00:00Z.")
@click.option("--until", callback=moment, metavar="TIME", help="Instead of TO: what was published before this time.")
@click.option("--dry-run", is_flag=True, help="Only show what would be delivered.")
@click.option("--wait", "wait_seconds", type=click.FloatRange(0, 86_400), metavar="S", help="Wait until it has ended.")
@postgres_option
@json_option
def replay(
    pipeline: str, from_id: int | None, to_id: int | None, *, since: datetime | None, until: datetime | None,
    dry_run: bool, wait_seconds: float | None, postgres_url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Has PIPELINE deliver the messages of its outbox from id FROM to id TO again, beside new messages.

    Both ids are delivered; without TO, everything that is settled so far. The offset does not move. Messages that
    retention has removed are gone. relay replays shows its progress, and cancels it.

    --since and --until (one, or both) find the ids: from the first message that was published then to the last. A time
    without a zone is UTC. Transactions mix, so messages of a moment before or after may lie between, and go with them.

    \b
    Exit codes: 0 requested (or, with --wait, ended); 1 refused, cancelled, not ended in S seconds; 2 wrong usage.

    \b
    Example:
      relay replay to-nats 1200 1300 --dry-run
      relay replay to-nats 1200 1300 --wait 60
      relay replay to-nats --since 2030-01-31T12:00:00+01:00 --until 2030-01-31T13:00:00+01:00 --dry-run
    """
    if (from_id is None) == (since is None and until is None):
        raise click.UsageError("give FROM and TO, or --since and --until: one of the two")
    if dry_run and wait_seconds is not None:
        raise click.UsageError("--dry-run requests nothing to wait for")
    with database(load_settings(postgres_url=postgres_url), "replay") as connection:
        if from_id is None:
            from_id, to_id = _found(connection, pipeline, since, until)
        if dry_run:
            _show_preview(operations.preview(connection, pipeline, from_id, to_id), as_json)
            return
        requested = operations.request(connection, pipeline, from_id, to_id)
        found = requested.replay
        if not requested.pipeline_enabled:
            tell(f"pipeline {pipeline} is disabled; it replays when you enable it: relay pipeline enable {pipeline}")
        if wait_seconds is None:
            text = f"replay {found.replay_id} of {pipeline}, ids {from_id} to {found.to_id}, is requested"
        else:
            found = operations.wait(connection, found, wait_seconds)
            text = f"replay {found.replay_id} has ended: {operations.progress(found)}"
    print_json(asdict(found)) if as_json else say(text)


def _found(connection: Connection, pipeline: str, since: datetime | None, until: datetime | None) -> tuple[int, int]:
    span = operations.span(connection, pipeline, since, until)
    if span.is_cut(since):
        kept = f"from {span.oldest_kept_id} on, published {span.oldest_kept_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        tell(f"retention has removed what was published before: the outbox keeps messages {kept}")
    return span.from_id, span.to_id


def _show_preview(preview: Preview, as_json: bool) -> None:
    if as_json:
        print_json(asdict(preview))
        return
    found = f"{counted(preview.messages, 'message')}, {counted(preview.bytes, 'byte')}"
    say(f"{found}, dead letters among them: {preview.dead_letters}")
    if preview.messages:
        say(f"first: {preview.first_id}, published {preview.first_at:%Y-%m-%d %H:%M:%S} UTC")
        say(f"last: {preview.last_id}, published {preview.last_at:%Y-%m-%d %H:%M:%S} UTC")
    kept = preview.oldest_kept_id
    say("the outbox keeps no message" if kept is None else f"the outbox keeps messages from {kept} on")


_HELP = """Lists and cancels the replays that relay replay requests.

\b
Example:
  relay replays list
  relay replays cancel 3
"""

replays = Verbs("replays", _HELP)


@replays.command("list")
@click.argument("pipeline", required=False)
@postgres_option
@json_option
def list_replays(pipeline: str | None, postgres_url: str | None, as_json: bool) -> None:
    """Lists the replays of one pipeline or of all, with their progress.

    \b
    Exit codes: 0 listed, also if there are none; 1 no such pipeline, or an error; 2 wrong usage.

    \b
    Example:
      relay replays list to-nats
    """
    with database(load_settings(postgres_url=postgres_url), "replays") as connection:
        found = operations.list_replays(connection, pipeline)
    print_list(found, _table, as_json=as_json, none="there are no replays; request one: relay replay PIPELINE FROM TO")


def _table(found: Sequence[Replay]) -> Table:
    table = Table(
        Column("id", number=True),
        Column("pipeline"),
        Column("from", number=True),
        Column("to", number=True),
        Column("next", number=True),
        Column("delivered", number=True),
        Column("dead", number=True),
        Column("state", whole=True),
        Column("requested", whole=True),
        Column("by"),
    )
    for one in found:
        numbers = [str(number) for number in (one.from_id, one.to_id, one.next_id, one.delivered, one.dead_letters)]
        requested_at = f"{one.requested_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(str(one.replay_id), one.pipeline, *numbers, one.state, requested_at, one.requested_by)
    return table


@replays.command()
@click.argument("replay_id", type=_ID, metavar="ID")
@postgres_option
def cancel(replay_id: int, postgres_url: str | None) -> None:
    """Ends a replay after its current batch. What it has delivered stays delivered.

    \b
    Exit codes: 0 it has ended, or had already; 1 it does not exist, or an error; 2 wrong usage.

    \b
    Example:
      relay replays cancel 3
    """
    with database(load_settings(postgres_url=postgres_url), "replays") as connection:
        cancelled = operations.cancel(connection, replay_id)
    say(f"replay {replay_id} {'is cancelled' if cancelled else 'had already ended'}")
