"""Brings the schema `tide` to this version: forward only, all or nothing, one at a time, while everything else runs.

The rule of upgrades: a migration is compatible if programs that do not know it go on working, and its file says so. A
program works on a database that is ahead of it by compatible migrations, and refuses any other that is not current.

After the migrations come the functions: if one of their files differs from what was applied last, all files are applied
again. They are compatible by rule. A program that is older than the functions leaves them alone: it is older if the
database has migrations that it does not know, or if a later version of tide-relay applied the functions.

`--print` gives the same SQL for people who apply it with a tool of their own.
"""

import random
import re
import time
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import sql

from relay import __version__
from relay.database.connection import VALUES, Connection, database_errors, opening, values
from relay.errors import MigrationError, NotConnected
from relay.reasons import reason_of
from relay.sql import Migration, functions, migrations, query, roles

# A publisher queues behind a migration that waits for a lock, so it waits briefly, gives everything back, and
# retries. Below PostgreSQL's deadlock_timeout of 1 s: should the two wait for each other, the migration is who yields.
LOCK_SECONDS = 0.5
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0
CHECK_SECONDS = 10.0
_IN_THE_WAY = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
_RELEASE = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:(a|b|rc)(\d+))?")


@dataclass(frozen=True, slots=True)
class State:
    """Where a database stands."""

    applied: tuple[int, ...]
    missing: tuple[Migration, ...]
    unknown: tuple[int, ...]
    """Applied, but not of this version: the database is ahead of us."""
    incompatible: tuple[int, ...] = ()
    """Those of the unknown that this version cannot work with."""
    functions: Literal["current", "behind", "ahead"] = "current"
    """Whether the functions are those of this version, older, or those of a later one."""

    @property
    def current(self) -> bool:
        return not self.missing and not self.unknown and self.functions == "current"

    @property
    def workable(self) -> bool:
        """Whether the programs of this version can work on it."""
        return not self.missing and not self.incompatible and self.functions != "behind"

    @property
    def lacks(self) -> tuple[str, ...]:
        """What `relay migrate` would apply, by name."""
        names = tuple(f"{migration.version:04}_{migration.name}" for migration in self.missing)
        return (*names, f"the functions of {__version__}") if self.functions == "behind" else names


@dataclass(frozen=True, slots=True)
class Applied:
    """What `migrate` has done."""

    migrations: tuple[Migration, ...] = ()
    functions: bool = False
    """Whether the function files were applied."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the migrations, as their files are named."""
        return tuple(f"{migration.version:04}_{migration.name}" for migration in self.migrations)


def migrate(postgres_url: str, *, timeout_seconds: float = 60.0, with_roles: bool = False) -> Applied:
    """Applies what is missing in one transaction and returns it; executes nothing if the database is current.

    The role needs CREATE on the database, and nothing more. Waits for a migration that runs already, and retries
    while transactions are in the way, for `timeout_seconds` in all. `with_roles` makes the roles too, which needs
    CREATEROLE where one is missing. Raises MigrationError if the database is ahead of this version by what it cannot
    work with, NotConnected (code `locked`) if something was in the way for too long, ConfigError for a missing right.
    """
    deadline = time.monotonic() + timeout_seconds
    pause_seconds = FIRST_PAUSE_SECONDS
    with database_errors(), _connect(postgres_url) as connection:
        _require_encoding(connection)
        connection.execute(*values())
        connection.commit()
        # What is applied already must be read after the lock is ours, whatever the database's default says.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        while True:
            try:
                return _migrate(connection, max(0.001, deadline - time.monotonic()), with_roles)
            except _IN_THE_WAY as error:
                connection.rollback()
                if time.monotonic() + pause_seconds >= deadline:
                    raise _gave_up(error, timeout_seconds) from error
            time.sleep(random.uniform(pause_seconds / 2, pause_seconds))
            pause_seconds = min(LONGEST_PAUSE_SECONDS, pause_seconds * 2)


def _connect(postgres_url: str) -> Connection:
    with opening():
        return psycopg.connect(postgres_url, connect_timeout=10, **VALUES)


def _require_encoding(connection: Connection) -> None:
    """Raises MigrationError: JSON is Unicode, and no other encoding holds all of it."""
    [encoding] = connection.execute(query("server_encoding")).fetchone() or [None]
    if encoding != "UTF8":
        raise MigrationError(
            f"the encoding of database {connection.info.dbname} is {encoding}, and messages may hold any character: "
            "create a database for it with encoding 'UTF8' template template0; nothing was changed"
        )


def check(connection: Connection) -> State:
    """Reads where the database stands; changes nothing. Raises NotConnected."""
    with database_errors():
        row = connection.execute(query("migration_exists")).fetchone()
        return _state(connection) if row and row[0] else State((), migrations(), (), functions="behind")


def require_current(connection: Connection) -> None:
    """Raises MigrationError, saying what to do, unless this version can work on the database."""
    state = check(connection)
    _refuse_ahead(state)
    if state.lacks:
        lacks = ", ".join(state.lacks)
        raise MigrationError(f"the database is behind this version of tide-relay, it lacks {lacks}: run relay migrate")


def require_compatible(connection: Connection) -> None:
    """Raises MigrationError if the database is ahead by what this version cannot work with.

    For the command line, whose role may be an application's: where it may not look, the statements must tell.
    """
    with database_errors():
        row = connection.execute(query("migration_readable")).fetchone()
        if row and row[0]:
            _refuse_ahead(_state(connection))


class Watch:
    """Asks every so often whether this version can still work: the schema may change under a program that runs."""

    def __init__(self, interval_seconds: float = CHECK_SECONDS) -> None:
        self._interval_seconds = interval_seconds
        self._next_at = 0.0

    def check(self, connection: Connection) -> None:
        """Raises MigrationError, each time, unless it can. Threads may share one."""
        if time.monotonic() >= self._next_at:
            require_current(connection)
            self._next_at = time.monotonic() + self._interval_seconds


def script(*, with_roles: bool = False) -> str:
    """All migrations and functions as one SQL script, which may be applied once to a database that has none."""
    parts = ["begin isolation level read committed;", query("migration_lock") + ";"]
    parts += ["set local standard_conforming_strings = on;"]
    parts += [f"set local lock_timeout = '{round(LOCK_SECONDS * 1000)}ms';", query("migration_table") + ";"]
    for migration in migrations():
        record = sql.SQL("insert into tide.migration (version, name, compatible) values ({}, {}, {});").format(
            migration.version, migration.name, migration.compatible
        )
        parts += [f"-- {migration.version:04}_{migration.name}", migration.sql.strip(), record.as_string()]
    for file in functions():
        record = sql.SQL("insert into tide.function_file (name, checksum, version) values ({}, {}, {});").format(
            file.name, file.checksum, __version__
        )
        parts += [f"-- functions/{file.name}", file.sql.strip(), record.as_string()]
    parts += [query("migration_copies") + ";", query("migration_permissions") + ";"]
    return "\n\n".join([*parts, *([roles().strip()] if with_roles else []), "commit;\n"])


def _migrate(connection: Connection, wait_seconds: float, with_roles: bool) -> Applied:
    """One try, in one transaction."""
    connection.execute(query("migration_wait"), {"timeout": f"{max(1, round(wait_seconds * 1000))}ms"})
    connection.execute(query("migration_lock"))
    connection.execute(query("migration_wait"), {"timeout": f"{round(LOCK_SECONDS * 1000)}ms"})
    state = check(connection)
    _refuse_ahead(state)
    if state.missing:
        connection.execute(query("migration_table"))
    for migration in state.missing:
        connection.execute(migration.sql)
        record = {"version": migration.version, "name": migration.name, "compatible": migration.compatible}
        connection.execute(query("migration_record"), record)
    if state.functions == "behind":
        _apply_functions(connection)
    if state.lacks:
        connection.execute(query("migration_permissions"))
        connection.execute(query("migration_tell"))
    if with_roles:
        connection.execute(roles())
    connection.commit()
    return Applied(state.missing, state.functions == "behind")


def _apply_functions(connection: Connection) -> None:
    """All files, in their order. Triggers, which need a lock on their table, only where the file has changed."""
    recorded = {name: checksum for name, checksum, _ in connection.execute(query("migration_files"))}
    connection.execute(query("migration_forget_files"))
    for file in functions():
        changed = recorded.get(file.name) != file.checksum
        connection.execute(file.sql if changed else file.without_triggers)
        record = {"name": file.name, "checksum": file.checksum, "version": __version__}
        connection.execute(query("migration_record_file"), record)
    connection.execute(query("migration_copies"))


def _gave_up(error: psycopg.Error, timeout_seconds: float) -> NotConnected:
    return NotConnected(
        f"PostgreSQL: {reason_of(error)}: for {timeout_seconds:g} s another migration, or a transaction that uses "
        "the schema tide, was in the way; nothing was changed. End it (relay status names open publishers), or run "
        "relay migrate again",
        code="locked",
    )


def _state(connection: Connection) -> State:
    applied: dict[int, bool] = dict(connection.execute(query("migration_applied")).fetchall())
    known = {migration.version for migration in migrations()}
    unknown = tuple(version for version in applied if version not in known)
    return State(
        tuple(applied),
        tuple(migration for migration in migrations() if migration.version not in applied),
        unknown,
        tuple(version for version in unknown if not applied[version]),
        _functions_state(connection, ahead=bool(unknown)),
    )


def _functions_state(connection: Connection, *, ahead: bool) -> Literal["current", "behind", "ahead"]:
    rows = connection.execute(query("migration_files")).fetchall()
    if {(name, checksum) for name, checksum, _ in rows} == {(file.name, file.checksum) for file in functions()}:
        return "current"
    later = any(_release(version) > _release(__version__) for _, _, version in rows)
    return "ahead" if ahead or later else "behind"


def _release(version: str) -> tuple[int, int, int, str, int]:
    """A version as what sorts: 0.2.0rc1 comes before 0.2.0."""
    match = _RELEASE.match(version)
    if match is None:
        raise MigrationError(f"the database has functions of {version}, which is not a version of tide-relay")
    major, minor, patch, stage, number = match.groups()
    return int(major), int(minor), int(patch), stage or "release", int(number or 0)


def _refuse_ahead(state: State) -> None:
    if state.incompatible:
        numbers = ", ".join(f"{version:04}" for version in state.incompatible)
        raise MigrationError(
            f"the database is ahead of this version of tide-relay: it has migration {numbers}, with which this version "
            "cannot work; upgrade tide-relay"
        )
