"""Brings the schema `tide` to this version: forward only, all or nothing, one at a time.

`--print` gives the same SQL for people who apply it with a tool of their own.
"""

from dataclasses import dataclass

import psycopg
from psycopg import sql

from relay.db import Connection, database_errors
from relay.errors import MigrationError
from relay.sql import Migration, migrations, query


@dataclass(frozen=True, slots=True)
class State:
    """Where a database stands."""

    applied: tuple[int, ...]
    missing: tuple[Migration, ...]
    unknown: tuple[int, ...]
    """Applied, but not of this version: the database is ahead of us."""

    @property
    def current(self) -> bool:
        return not self.missing and not self.unknown


def migrate(postgres_url: str, *, timeout_seconds: float = 60.0) -> list[Migration]:
    """Applies what is missing in one transaction and returns it; nothing if the database is current.

    The role needs CREATE on the database, and nothing more. Waits for a migration that runs already.
    Raises MigrationError if the database is ahead of this version, NotConnected, or ConfigError for a missing right.
    """
    with database_errors(), psycopg.connect(postgres_url, connect_timeout=10) as connection:
        # What is applied already must be read after the lock is ours, whatever the database's default says.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        connection.execute(query("migration_wait"), {"timeout": f"{round(timeout_seconds * 1000)}ms"})
        connection.execute(query("migration_lock"))
        connection.execute(query("migration_table"))
        state = _state(connection)
        _refuse_ahead(state)
        for migration in state.missing:
            connection.execute(migration.sql)
            connection.execute(query("migration_record"), {"version": migration.version, "name": migration.name})
        return list(state.missing)


def check(connection: Connection) -> State:
    """Reads where the database stands; changes nothing. Raises NotConnected."""
    with database_errors():
        row = connection.execute(query("migration_exists")).fetchone()
        return _state(connection) if row and row[0] else State((), migrations(), ())


def require_current(connection: Connection) -> None:
    """Raises MigrationError, saying what to do, unless this version can work on the database."""
    state = check(connection)
    _refuse_ahead(state)
    if state.missing:
        names = ", ".join(f"{migration.version:04}_{migration.name}" for migration in state.missing)
        raise MigrationError(f"the database is behind this version of tide-relay, it lacks {names}: run relay migrate")


def script() -> str:
    """All migrations as one SQL script, which may be applied once to a database that has none."""
    parts = ["begin isolation level read committed;", query("migration_lock") + ";", query("migration_table") + ";"]
    for migration in migrations():
        record = sql.SQL("insert into tide.migration (version, name) values ({}, {});").format(
            migration.version, migration.name
        )
        parts += [f"-- {migration.version:04}_{migration.name}", migration.sql.strip(), record.as_string()]
    return "\n\n".join([*parts, "commit;\n"])


def _state(connection: Connection) -> State:
    applied = tuple(version for version, _ in connection.execute(query("migration_applied")))
    known = {migration.version for migration in migrations()}
    missing = tuple(migration for migration in migrations() if migration.version not in applied)
    return State(applied, missing, tuple(version for version in applied if version not in known))


def _refuse_ahead(state: State) -> None:
    if state.unknown:
        numbers = ", ".join(f"{version:04}" for version in state.unknown)
        raise MigrationError(
            f"the database is ahead of this version of tide-relay: it has migration {numbers}; upgrade tide-relay"
        )
