"""PostgreSQL for tests: a database of its own for each test, copied from a migrated template."""

import contextlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from relay.database.migrate import migrate
from relay.local.servers import EmbeddedPostgres

OWNER = "tide_owner"
OWNER_PASSWORD = "owner"
RELAY_GROUP = "tide_relay"
FLEET = "tide_fleet"
FLEET_PASSWORD = "fleet"
TEMPLATE = "tide_template"
# Commits need not survive a power cut here; a killed server loses nothing even so.
TEST_SETTINGS: dict[str, str | int] = {"fsync": "off", "shared_buffers": "64MB", "log_min_duration_statement": 5000}


@dataclass(frozen=True)
class Database:
    """One database, owned by a role that is no superuser, as it would be on a managed service."""

    server: "PostgresServer"
    name: str

    @property
    def url(self) -> str:
        """As its owner."""
        return self.server.process.url_of(self.name, OWNER, OWNER_PASSWORD)

    @property
    def admin_url(self) -> str:
        """As the superuser."""
        return self.server.process.url_of(self.name, "postgres", self.server.process.password)

    def fleet_url(self) -> str:
        """As a role that is a member of tide_relay and nothing else: what schedulers and workers need, and no more."""
        with self.connect() as owner:
            owner.execute("select tide.grant_relay(%s)", [RELAY_GROUP])
        return self.server.process.url_of(self.name, FLEET, FLEET_PASSWORD)

    def connect(self, **options: Any) -> "psycopg.Connection[Any]":
        """As its owner, in autocommit unless told otherwise. Use it as a context manager, or close it."""
        options.setdefault("autocommit", True)
        return psycopg.connect(self.url, **options)

    def admin(self, **options: Any) -> "psycopg.Connection[Any]":
        """As the superuser, in autocommit unless told otherwise."""
        options.setdefault("autocommit", True)
        return psycopg.connect(self.admin_url, **options)


@dataclass
class PostgresServer:
    """A running PostgreSQL with the role that owns the databases."""

    process: EmbeddedPostgres
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _has_template: bool = False

    @classmethod
    def start_in(cls, folder: Path, version: int, settings: dict[str, str | int] | None = None) -> "PostgresServer":
        server = cls(EmbeddedPostgres(folder, version, TEST_SETTINGS | (settings or {})))
        server.start()
        with server._admin() as admin:
            admin.execute(f"create role {OWNER} login password '{OWNER_PASSWORD}'")
            admin.execute(f"create role {RELAY_GROUP}")
            admin.execute(f"create role {FLEET} login password '{FLEET_PASSWORD}' in role {RELAY_GROUP}")
        return server

    @property
    def version(self) -> int:
        return self.process.version

    @property
    def admin_url(self) -> str:
        return self.process.url

    @property
    def log(self) -> Path:
        return self.process.log

    def start(self) -> None:
        self.process.start()

    def stop(self) -> None:
        self.process.stop()

    def kill(self) -> None:
        """As in a crash."""
        self.process.kill()

    def restart(self) -> None:
        self.process.restart()

    def create_database(self, *, migrated: bool = True) -> Database:
        """A new database: a copy of the migrated template, or an empty one."""
        if not migrated:
            return self._create(f"empty_{next(self._numbers)}", "template1")
        if not self._has_template:
            migrate(self._create(TEMPLATE, "template1").url)
            self._has_template = True
        return self._create(f"test_{next(self._numbers)}", TEMPLATE)

    def drop_database(self, database: Database) -> None:
        """Cuts off whoever is still connected."""
        self.start()
        with self._admin() as admin:
            for (gid,) in admin.execute("select gid from pg_prepared_xacts where database = %s", [database.name]):
                with database.admin() as inside:
                    inside.execute(sql.SQL("rollback prepared {}").format(sql.Literal(gid)))
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(database.name)))

    def _create(self, name: str, template: str) -> Database:
        with self._admin() as admin:
            # Copied file by file: block by block through the log takes two to four times as long.
            statement = sql.SQL("create database {} owner {} template {} strategy file_copy")
            admin.execute(statement.format(*map(sql.Identifier, (name, OWNER, template))))
        return Database(self, name)

    def _admin(self) -> "contextlib.AbstractContextManager[psycopg.Connection[Any]]":
        return psycopg.connect(self.admin_url, autocommit=True)
