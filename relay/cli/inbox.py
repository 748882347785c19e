"""`relay inbox ...`: list inboxes, how one is doing, its messages, and replays of dead ones."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

import click
from rich.table import Table

from relay.cli.base import (
    Verbs,
    database,
    json_option,
    load_settings,
    output,
    postgres_option,
    print_json,
    print_json_text,
    print_list,
    say,
    shown,
    tell,
)
from relay.cli.jobs_json import as_json_text
from relay.cli.values import moment, require_yes, time_text
from relay.operations import inboxes as operations
from relay.operations.base import Connection, counted, seconds_text
from relay.operations.inboxes import STATES, Inbox, InboxStatus, MessageSummary, State, Wanted

_HELP = """Shows inboxes and their messages, and replays messages whose handling has failed for the last time (dead).

States of a message: pending (with those that are claimed, or retrying after a failure), processed, dead.

\b
Example:
  relay inbox list
  relay inbox messages payments --dead
  relay inbox replay payments --all-dead
"""

inbox = Verbs("inbox", _HELP)

_name = click.argument("name")
COLOURS = {"healthy": "green", "degraded": "yellow", "critical": "bold red"}


@inbox.command("list")
@postgres_option
@json_option
def list_inboxes(postgres_url: str | None, as_json: bool) -> None:
    """Lists the inboxes with their dead messages. Beyond 10,000 their number is an estimate.

    It shows those that the role may see: with the rights of tide.grant_reader, all.

    \b
    Exit codes: 0 listed, also if there are none; 1 an error; 2 wrong usage.

    \b
    Example:
      relay inbox list --json | jq '.[] | select(.dead > 0)'
    """
    with database(load_settings(postgres_url=postgres_url), "inbox") as connection:
        found = operations.list_inboxes(connection)
    none = "there are no inboxes that this role may see; create one in SQL, select tide.inbox_create('NAME'), "
    print_list(found, _inboxes, as_json=as_json, none=f"{none}and a pipeline into it: relay pipeline set")


def _inboxes(found: Sequence[Inbox]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("inbox", "table", "retries", "order", "keeps (h)", "keeps dead (h)", "dead", "oldest died"):
        left = title in ("inbox", "table", "order", "oldest died")
        table.add_column(title, justify="left" if left else "right", overflow="fold")
    for one in found:
        kept = [
            "" if hours is None else str(hours) for hours in (one.processed_retention_hours, one.dead_retention_hours)
        ]
        dead = "unknown" if one.dead is None else shown(str(one.dead), "red" if one.dead else "")
        table.add_row(
            one.inbox, one.table, str(one.max_retries), "yes" if one.ordered else "", *kept, dead,
            time_text(one.oldest_dead_at),
        )  # fmt: skip
    return table


@inbox.command()
@_name
@postgres_option
@json_option
def status(name: str, postgres_url: str | None, as_json: bool) -> None:
    """Shows how an inbox is doing: its health and why, and how many messages it has in each state.

    It counts every message, so it takes a while for a large inbox.

    \b
    Exit codes: 0 shown, whatever its health; 1 no such inbox, or an error; 2 wrong usage.

    \b
    Example:
      relay inbox status payments
    """
    with database(load_settings(postgres_url=postgres_url), "inbox") as connection:
        found = operations.status(connection, name)
    if as_json:
        print_json(asdict(found))
        return
    output().print(_status(found))
    for reason in found.reasons:
        say(reason)
    if found.dead:
        tell(f"see the dead messages: relay inbox messages {name} --dead")


def _status(found: InboxStatus) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in (
        "inbox", "health", "pending", "claimed", "retrying", "processed", "dead", "oldest pending", "per minute",
        "duplicates", "bytes",
    ):  # fmt: skip
        table.add_column(title, justify="left" if title in ("inbox", "health") else "right", overflow="fold")
    oldest = "" if found.oldest_pending_seconds is None else seconds_text(found.oldest_pending_seconds)
    numbers = (found.pending, found.claimed, found.retrying, found.processed, found.dead)
    rest = (found.processed_per_minute, found.duplicates, found.total_bytes)
    table.add_row(found.inbox, shown(found.health, COLOURS[found.health]), *map(str, numbers), oldest, *map(str, rest))
    return table


def _since_until(command: click.decorators.FC) -> click.decorators.FC:
    until = "And before this time."
    command = click.option("--until", callback=moment, metavar="TIME", help=until)(command)
    since = "Only those that died (or were processed) then or later: 2030-01-31T12:00:00Z."
    return click.option("--since", callback=moment, metavar="TIME", help=since)(command)


def _states(command: click.decorators.FC) -> click.decorators.FC:
    for state in reversed(STATES):
        text = f"Those that are {state}{' (the default)' if state == 'dead' else ''}."
        command = click.option(f"--{state}", "state", flag_value=state, help=text)(command)
    return command


@inbox.command()
@_name
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_states
@_since_until
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, metavar="N", help="How many; default 100.")
@click.option("--before", metavar="CURSOR", help="Go on where a page has ended.")
@postgres_option
@json_option
def messages(
    name: str, ids: tuple[str, ...], *, state: State | None, since: datetime | None, until: datetime | None, limit: int,
    before: str | None, postgres_url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Lists messages of an inbox in one state, newest first, or those of these ids; with --json in full.

    \b
    Exit codes: 0 listed, also if there are none; 1 no such inbox or message, or an error; 2 wrong usage.

    \b
    Example:
      relay inbox messages payments --dead
      relay inbox messages payments --retrying --limit 10
      relay inbox messages payments payment-42 --json
    """
    if ids and (state or since or until or before):
        raise click.UsageError("give ids, or a state, a time and a page: ids find a message in whatever state")
    wanted = Wanted(state or "dead", ids, since, until)
    with database(load_settings(postgres_url=postgres_url), "inbox") as connection:
        page = operations.list_messages(connection, name, wanted, limit=limit, before=before)
        if as_json:
            _print_json(connection, name, page.messages)
        elif not page.messages:
            tell(f"inbox {name} has no message that is {wanted.state}")
        else:
            output().print(_messages(page.messages))
    if page.next_before is not None:
        tell(f"there are more: continue with --before {page.next_before}")


def _messages(found: Sequence[MessageSummary]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("id", "state", "type", "aggregate", "failures", "received", "failed", "error"):
        table.add_column(title, justify="right" if title == "failures" else "left", overflow="fold")
    for one in found:
        table.add_row(
            one.event_id, one.state, one.event_type or "", one.aggregate_id or "", str(one.retry_count),
            time_text(one.received_at), time_text(one.failed_at), one.error or "",
        )  # fmt: skip
    return table


def _print_json(connection: Connection, name: str, found: Sequence[MessageSummary]) -> None:
    """One after the other, so that only one payload at a time is in memory."""
    print_json_text("[", end=False)
    separator = "\n"
    for message in operations.read_each(connection, name, [summary.event_id for summary in found]):
        print_json_text(separator + as_json_text(message), end=False)
        separator = ",\n"
    print_json_text("\n]" if found else "]")


@inbox.command()
@_name
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all-dead", is_flag=True, help="All dead messages.")
@_since_until
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Of dead messages: how many, the oldest first.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@postgres_option
@json_option
def replay(
    name: str, ids: tuple[str, ...], *, all_dead: bool, since: datetime | None, until: datetime | None,
    limit: int | None, yes: bool, postgres_url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Makes messages of an inbox pending again, as if they had just arrived: these ids, or dead messages.

    Ids may also be those of messages that were processed: they are handled again. All ids are replayed, or none; those
    that a worker holds are left out. For dead messages it asks first at a terminal; elsewhere it needs --yes. What dies
    meanwhile stays dead.

    \b
    Exit codes: 0 replayed, also if there was nothing to replay; 1 one does not exist, or not confirmed; 2 wrong usage.

    \b
    Example:
      relay inbox replay payments payment-42 payment-43
      relay inbox replay payments --all-dead --limit 10 --yes
      relay inbox replay payments --since 2030-01-31T12:00:00Z --until 2030-01-31T13:00:00Z --yes
    """
    dead = all_dead or bool(since or until)
    if bool(ids) == dead or (all_dead and (since or until)):
        raise click.UsageError("give the ids of messages, --all-dead, or --since and --until: one of these")
    if limit and not dead:
        raise click.UsageError("--limit is for dead messages")
    if dead:
        require_yes(f"replays {'all dead messages' if all_dead else 'dead messages'} of inbox {name}", yes)
    with database(load_settings(postgres_url=postgres_url), "inbox") as connection:
        if dead:
            count = operations.replay_dead(connection, name, since=since, until=until, limit=limit)
        else:
            count = operations.replay(connection, name, ids)
    if as_json:
        print_json({"inbox": name, "replayed": count})
    else:
        say(f"replayed {counted(count, 'message')} of inbox {name}")
    if left := len(set(ids)) - count if ids else 0:
        tell(f"{counted(left, 'message is', 'messages are')} pending already, or a worker holds what it is working on")
