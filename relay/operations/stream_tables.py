"""Stream tables: create, change, refresh and drop them; how they are."""

from dataclasses import dataclass
from datetime import datetime

from relay.errors import ConfigError, MigrationError
from relay.operations.base import Connection, execute, rows, transaction
from relay.reasons import reason_of


@dataclass(frozen=True, slots=True)
class StreamTable:
    """A table that the fleet keeps equal to a query."""

    name: str
    status: str
    """INITIALIZING, ACTIVE, ERROR (the last refresh failed), SUSPENDED (no refresh until someone resumes it)."""
    schedule: str
    refresh_mode: str
    effective_mode: str
    """DIFFERENTIAL or FULL."""
    tier: str
    is_populated: bool
    behind: str | None
    """Why it may differ from its query; None: it is equal to it."""
    data_timestamp: datetime | None
    """Of the snapshot whose state it shows."""
    staleness_seconds: float | None
    """0 while it is equal to its query; None before its first refresh."""
    consecutive_errors: int
    last_error: str | None
    why_full: str | None
    """Why a refresh computes the whole query; None: it does not have to."""


def list_stream_tables(connection: Connection) -> list[StreamTable]:
    """By name."""
    return [StreamTable(**row) for row in rows(connection, "stream_tables")]


def create(
    connection: Connection, name: str, query: str, *, schedule: str, refresh_mode: str, tier: str, initialize: bool
) -> None:
    """Raises ConfigError if PostgreSQL or we refuse the query, or the table exists."""
    with transaction(connection):
        execute(connection, "stream_names")
        try:
            execute(
                connection,
                "stream_create",
                name=name,
                query=query,
                schedule=schedule,
                refresh_mode=refresh_mode,
                tier=tier,
                initialize=initialize,
            )
        except MigrationError as error:
            # What is missing is named by the query.
            raise ConfigError(f"PostgreSQL: {reason_of(error.__cause__ or error)}") from error


def change(
    connection: Connection, name: str, *, schedule: str | None, refresh_mode: str | None, tier: str | None
) -> None:
    """None keeps what is. Raises ConfigError if there is no such stream table, or the value is refused."""
    execute(connection, "stream_alter", name=name, schedule=schedule, refresh_mode=refresh_mode, tier=tier)


def refresh(connection: Connection, name: str) -> None:
    """Has the fleet refresh it now. Raises ConfigError if it is suspended, frozen or missing."""
    execute(connection, "stream_ask", name=name)


def resume(connection: Connection, name: str) -> None:
    """Raises ConfigError if there is no such stream table."""
    execute(connection, "stream_resume", name=name)


def drop(connection: Connection, name: str) -> None:
    """Raises ConfigError if there is no such stream table, or something depends on it."""
    execute(connection, "stream_drop", name=name)
