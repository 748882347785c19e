"""Stream tables: create, change, refresh and drop them; how they are."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from relay.errors import ConfigError, MigrationError
from relay.operations.base import Connection, execute, one, rows, transaction
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
    """DIFFERENTIAL, FULL or IMMEDIATE."""
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
    outbox: str | None
    """Where each refresh publishes what it changed; None: nowhere."""
    refreshed_with: list[str]
    """The others of its group: they are refreshed in one transaction."""
    append_broken: str | None
    """How it was seen that its sources are not append-only, as it had been said; None: they are, or it was not."""


def list_stream_tables(connection: Connection) -> list[StreamTable]:
    """By name."""
    return [StreamTable(**row) for row in rows(connection, "stream_tables")]


def create(
    connection: Connection,
    name: str,
    query: str,
    *,
    schedule: str | None,
    refresh_mode: str,
    tier: str,
    initialize: bool,
    append_only: bool = False,
    diamond_consistency: str = "atomic",
    refresh_group: str | None = None,
    replace: bool = False,
) -> None:
    """Creates one; `replace`: or gives the one of that name this query and these options.

    Raises ConfigError if PostgreSQL or we refuse the query, or the table exists.
    """
    with _query(connection):
        execute(
            connection,
            "stream_replace" if replace else "stream_create",
            name=name,
            query=query,
            schedule=schedule,
            refresh_mode=refresh_mode,
            tier=tier,
            initialize=initialize,
            append_only=append_only,
            diamond_consistency=diamond_consistency,
            refresh_group=refresh_group,
        )


@contextmanager
def _query(connection: Connection) -> Iterator[None]:
    """Around a statement that has a query, whose names are looked up as in a session of this role."""
    with transaction(connection):
        execute(connection, "stream_names")
        try:
            yield
        except MigrationError as error:
            # What is missing is named by the query.
            raise ConfigError(f"PostgreSQL: {reason_of(error.__cause__ or error)}") from error


def change(
    connection: Connection,
    name: str,
    *,
    query: str | None,
    schedule: str | None,
    refresh_mode: str | None,
    tier: str | None,
    status: str | None,
    append_only: bool | None = None,
    diamond_consistency: str | None = None,
    refresh_group: str | None = None,
) -> None:
    """None keeps what is. Raises ConfigError if there is no such stream table, or the value is refused."""
    with _query(connection):
        execute(
            connection,
            "stream_alter",
            name=name,
            query=query,
            schedule=schedule,
            refresh_mode=refresh_mode,
            tier=tier,
            status=status,
            append_only=append_only,
            diamond_consistency=diamond_consistency,
            refresh_group=refresh_group,
        )


def wait(connection: Connection, name: str, timeout_seconds: float) -> None:
    """Returns when it, and those that it reads, show everything that was committed before.

    Raises ConfigError if there is no such stream table, or it is not refreshed; NotConnected if that took too long.
    """
    with transaction(connection):
        execute(connection, "stream_wait_limits")
        execute(connection, "stream_wait", name=name, seconds=timeout_seconds)


def refresh(connection: Connection, name: str) -> None:
    """Has the fleet refresh it now. Raises ConfigError if it is suspended, frozen or missing."""
    execute(connection, "stream_ask", name=name)


def pause(connection: Connection, name: str) -> None:
    """No refresh until it is resumed. Raises ConfigError if there is no such stream table."""
    execute(connection, "stream_pause", name=name)


def resume(connection: Connection, name: str) -> None:
    """Raises ConfigError if there is no such stream table."""
    execute(connection, "stream_resume", name=name)


def enable_outbox(
    connection: Connection, name: str, *, outbox: str | None = None, retention_hours: int | None = None
) -> str:
    """Has each refresh publish what it changed; the name of the outbox. Raises ConfigError if it has another one."""
    return str(one(connection, "stream_outbox_enable", name=name, outbox=outbox, retention_hours=retention_hours))


def disable_outbox(connection: Connection, name: str, *, drop_outbox: bool = False) -> None:
    """Raises ConfigError if there is no such stream table, or something reads the outbox that is to be dropped."""
    execute(connection, "stream_outbox_disable", name=name, drop_outbox=drop_outbox)


def drop(connection: Connection, name: str) -> None:
    """Raises ConfigError if there is no such stream table, or something depends on it."""
    execute(connection, "stream_drop", name=name)
