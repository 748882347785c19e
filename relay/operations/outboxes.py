"""Outboxes: create, list and show them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from relay.errors import ConfigError
from relay.operations.base import Connection, one, rows
from relay.operations.pages import pages


@dataclass(frozen=True, slots=True)
class OutboxSummary:
    """An outbox of messages."""

    outbox: str
    enabled: bool
    """Whether it takes messages."""
    retention_hours: int
    """How long messages are kept once settled."""
    max_payload_bytes: int
    created_at: datetime
    last_id: int
    """The last id that it gave."""
    consumer_groups: int
    lag: int | None
    """In ids, of the group that is furthest behind. None: it has no group."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A consumer group of an outbox."""

    consumer_group: str
    pipeline: str | None
    """None: it is polled in SQL."""
    offset_id: int
    lag: int
    """In ids."""


@dataclass(frozen=True, slots=True)
class OutboxShown(OutboxSummary):
    """Everything about an outbox but its messages."""

    horizon: int
    """Up to this id it is complete."""
    open_publishers: int
    partitions: int
    total_bytes: int
    readers: Sequence[Reader]
    """The one that is furthest behind first."""


def create(connection: Connection, name: str) -> bool:
    """Creates an outbox; False if it exists. Raises ConfigError for a name that an outbox cannot have."""
    return bool(one(connection, "outbox_create", outbox=name))


def list_outboxes(connection: Connection) -> list[OutboxSummary]:
    """By name. Queues of jobs are not among them."""
    return [OutboxSummary(**row) for row in pages(connection, "outbox_list")]


def show(connection: Connection, name: str) -> OutboxShown:
    """Raises ConfigError if it does not exist, or is a queue of jobs."""
    found = [row["outbox_id"] for row in rows(connection, "outbox_id", outbox=name)]
    for summary in pages(connection, "outbox_list", found):
        [status] = rows(connection, "outbox_show", outbox=name)
        readers = [Reader(**row) for row in rows(connection, "outbox_show_groups", outbox=name)]
        return OutboxShown(**summary, **status, readers=readers)
    if name.startswith("jobs/"):
        raise ConfigError(f"outbox {name} is a queue of jobs: see relay jobs queue show {name.removeprefix('jobs/')}")
    raise ConfigError(f"outbox {name} does not exist; list them: relay outbox list")
