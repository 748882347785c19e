"""Inboxes: list them, how one is doing, its messages, and replays of dead ones."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from relay.errors import ConfigError
from relay.masking import mask
from relay.operations.base import Connection, one, rows

State = Literal["dead", "pending", "claimed", "retrying", "processed"]
STATES: tuple[State, ...] = get_args(State)

# Of one statement, which locks the table of each.
PAGE_INBOXES = 200
# Of one transaction: workers that claim meanwhile pass over its rows.
REPLAY_MESSAGES = 1000


@dataclass(frozen=True, slots=True)
class DeadNumber:
    """The dead messages of an inbox."""

    inbox: str
    dead: int | None
    """Beyond 10,000 an estimate. None: its table cannot be read, or is locked."""
    oldest_at: datetime | None
    """When the oldest died."""


@dataclass(frozen=True, slots=True)
class Inbox:
    """An inbox, how it is made, and its dead messages."""

    inbox: str
    table: str
    max_retries: int
    ordered: bool
    """Whether messages of an aggregate are claimed one by one."""
    processed_retention_hours: int | None
    """None: as the setting says; 0: indefinitely."""
    dead_retention_hours: int | None
    dead: int | None
    """As in `DeadNumber`."""
    oldest_dead_at: datetime | None


@dataclass(frozen=True, slots=True)
class InboxStatus:
    """How an inbox is doing."""

    inbox: str
    table: str
    health: str
    """healthy, degraded or critical."""
    reasons: Sequence[str]
    """Why it is not healthy."""
    pending: int
    """Claimed and retrying ones too."""
    claimed: int
    retrying: int
    processed: int
    dead: int
    dead_last_5_minutes: int
    oldest_pending_seconds: float | None
    processed_per_minute: int
    duplicates: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class MessageSummary:
    """A message of an inbox without what can be large."""

    event_id: str
    inbox_seq: int
    """The order of arrival."""
    state: State
    event_type: str | None
    aggregate_id: str | None
    retry_count: int
    received_at: datetime
    failed_at: datetime | None
    """The last failure."""
    processed_at: datetime | None
    available_at: datetime | None
    """Until when it is claimed, or waits for its retry."""
    claimed_by: str | None
    error: str | None
    """Of the last failure. Secrets in it are masked."""


@dataclass(frozen=True, slots=True)
class InboxMessage(MessageSummary):
    """A message whole. JSON is text, as PostgreSQL prints it."""

    source: str | None
    event_sequence: int | None
    trace_id: str | None
    headers: str | None
    payload: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which messages: those of these ids, or those in a state."""

    state: State = "dead"
    event_ids: Sequence[str] = ()
    since: datetime | None = None
    """Of dead and processed messages: those that died, or were processed, then or later."""
    until: datetime | None = None
    """And before this."""


@dataclass(frozen=True, slots=True)
class MessagePage:
    """Messages, newest first."""

    messages: list[MessageSummary]
    next_before: str | None
    """There are more below this cursor."""


def dead_numbers(connection: Connection, names: Sequence[str] | None = None) -> Iterator[DeadNumber]:
    """Of these inboxes, or of each that this role may see, by name. Cheap: it reads an index of the dead only."""
    after, more = "", True
    while more:
        wanted = {"inboxes": names, "after_name": after, "max_inboxes": PAGE_INBOXES}
        page = rows(connection, "inbox_dead_numbers", **wanted)
        yield from (DeadNumber(*row.values()) for row in page)
        more = len(page) == PAGE_INBOXES
        after = page[-1]["name"] if page else ""


def list_inboxes(connection: Connection) -> list[Inbox]:
    """Those that this role may see, by name."""
    numbers = {found.inbox: found for found in dead_numbers(connection)}
    made = rows(connection, "inbox_list", names=list(numbers))
    return [
        Inbox(**row, dead=numbers[row["inbox"]].dead, oldest_dead_at=numbers[row["inbox"]].oldest_at) for row in made
    ]


def status(connection: Connection, inbox: str) -> InboxStatus:
    """Counts every message of it. Raises ConfigError if it does not exist, or this role may not see it."""
    [row] = rows(connection, "inbox_show_status", inbox=inbox)
    return InboxStatus(**row)


def list_messages(
    connection: Connection, inbox: str, wanted: Wanted, *, limit: int = 100, before: str | None = None
) -> MessagePage:
    """At most `limit` below the cursor `before`. Raises ConfigError if the inbox or one of the ids does not exist."""
    before_at, before_seq = _cursor(before)
    ids = list(dict.fromkeys(wanted.event_ids)) or None
    given = {"state": wanted.state, "event_ids": ids, "since": wanted.since, "until": wanted.until}
    page = {"before_at": before_at, "before_seq": before_seq, "max_rows": len(ids) if ids else limit + 1}
    found = [MessageSummary(**_masked(row)) for row in rows(connection, "inbox_messages", inbox=inbox, **given, **page)]
    if missing := sorted(set(ids or ()) - {message.event_id for message in found}):
        raise ConfigError(f"inbox {inbox} has no message {', '.join(missing)}: it may have been removed by retention")
    shown = found if ids else found[:limit]
    return MessagePage(shown, _next(shown[-1], wanted.state) if len(found) > len(shown) else None)


def read_each(connection: Connection, inbox: str, event_ids: Iterable[str]) -> Iterator[InboxMessage]:
    """One after the other, so that only one payload at a time is in memory. Those that are gone are left out."""
    for event_id in event_ids:
        for row in rows(connection, "inbox_message", inbox=inbox, event_id=event_id):
            yield InboxMessage(**_masked(row))


def replay(connection: Connection, inbox: str, event_ids: Sequence[str]) -> int:
    """Makes these messages pending again; how many were not. Those that a worker holds, and pending ones, stay.

    Raises ConfigError if one does not exist: then none is replayed.
    """
    return int(one(connection, "inbox_replay", inbox=inbox, event_ids=list(dict.fromkeys(event_ids))))


def replay_dead(
    connection: Connection,
    inbox: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int | None = None,
) -> int:
    """Makes dead messages pending again, the oldest first, in transactions of 1,000; how many.

    What dies while it runs stays dead. Raises ConfigError if the inbox does not exist.
    """
    until, done = one(connection, "inbox_replay_until", until=until), 0
    while limit is None or done < limit:
        size = REPLAY_MESSAGES if limit is None else min(REPLAY_MESSAGES, limit - done)
        count = int(one(connection, "inbox_replay_dead", inbox=inbox, since=since, until=until, max_messages=size))
        if not count:
            break
        done += count
    return done


def _masked(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"error": row["error"] and mask(row["error"])}


def _next(message: MessageSummary, state: State) -> str:
    """The cursor of what comes after a message: the time of its state, and its number."""
    times = {"dead": message.failed_at, "processed": message.processed_at}
    moment = times.get(state, message.available_at)
    return f"{moment.isoformat() if moment else ''},{message.inbox_seq}"


def _cursor(before: str | None) -> tuple[datetime | None, int | None]:
    if before is None:
        return None, None
    moment, _, number = before.rpartition(",")
    try:
        found = datetime.fromisoformat(moment) if moment else None
        if found is not None and found.tzinfo is None:
            raise ValueError
        return found, int(number)
    except ValueError:
        raise ConfigError(f"{before!r} is not the cursor of a page: give the one that the page before said") from None
