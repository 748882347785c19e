"""Snapshots of stream tables: tables with the rows that one had, from which it can be restored."""

from dataclasses import dataclass
from datetime import datetime

from relay.operations.base import Connection, execute, one, rows


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A table with the rows that a stream table had after a refresh."""

    snapshot_table: str
    stream_table: str
    row_count: int
    size_bytes: int
    created_at: datetime
    data_timestamp: datetime
    """Of the refresh whose rows they are."""


def take(connection: Connection, name: str, target: str) -> str:
    """The name of the new table, with its schema. Raises ConfigError if it exists, or there is nothing to be copied."""
    return str(one(connection, "snapshot_take", name=name, target=target))


def list_snapshots(connection: Connection, name: str | None = None) -> list[Snapshot]:
    """Of one stream table, or of all; the oldest first. Raises ConfigError if there is no such stream table."""
    return [Snapshot(**row) for row in rows(connection, "snapshots", name=name)]


def restore(connection: Connection, name: str, source: str) -> str | None:
    """Why the next refresh computes the whole query; None: it goes on from the snapshot.

    Raises ConfigError if there is no such stream table or snapshot, or it has other columns.
    """
    why = one(connection, "snapshot_restore", name=name, source=source)
    return None if why is None else str(why)


def drop(connection: Connection, source: str) -> None:
    """Raises ConfigError if it is no snapshot, or something depends on it."""
    execute(connection, "snapshot_drop", source=source)
