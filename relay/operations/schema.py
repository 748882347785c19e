"""The schema of the database: check it, bring it to this version, or write the SQL that does."""

from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from relay.database import migrate as migrations
from relay.database.connection import connect
from relay.database.migrate import Applied
from relay.settings import Settings


@dataclass(frozen=True, slots=True)
class SchemaState:
    """What the database has of the migrations of this version, by their names."""

    current: bool
    workable: bool
    """The programs of this version can work on it."""
    missing: list[str]
    unknown: list[str]
    """Numbers of migrations of later versions."""
    incompatible: list[str]
    """Those of the unknown that this version cannot work with."""
    functions: Literal["current", "behind", "ahead"]
    """Whether the functions are those of this version, older, or those of a later one."""
    lacks: list[str]
    """What `migrate` would apply, the functions included."""


def check(settings: Settings) -> SchemaState:
    """Changes nothing. Raises NotConnected, or ConfigError if the server refuses us."""
    with closing(connect(settings, "tide-relay migrate")) as connection:
        state = migrations.check(connection)
    return SchemaState(
        state.current,
        state.workable,
        [f"{migration.version:04}_{migration.name}" for migration in state.missing],
        [f"{version:04}" for version in state.unknown],
        [f"{version:04}" for version in state.incompatible],
        state.functions,
        list(state.lacks),
    )


def migrate(settings: Settings, *, timeout_seconds: float = 60.0, with_roles: bool = False) -> Applied:
    """Applies what is missing, and returns it. Raises as `relay.database.migrate.migrate` does."""
    return migrations.migrate(settings.postgres_url, timeout_seconds=timeout_seconds, with_roles=with_roles)


def script(*, with_roles: bool = False) -> str:
    """The SQL of all migrations and functions, for your own tool."""
    return migrations.script(with_roles=with_roles)
