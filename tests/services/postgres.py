"""PostgreSQL for tests: a database of its own for each test, copied from a migrated template."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from relay.database.migrate import migrate
from relay.local.servers import EmbeddedPostgres, _postgres_programs
from tests.services.ready_databases import ReadyDatabases
from tests.services.unavailable import unavailable

ROOT = Path(__file__).parents[2]
OWNER = "tide_owner"
OWNER_PASSWORD = "owner"
RELAY_GROUP = "tide_relay"
FLEET = "tide_fleet"
FLEET_PASSWORD = "fleet"
TEMPLATE = "tide_template"
# Those that tests/services/install-postgres brings; 16 and 18 come from a wheel.
NPM_VERSIONS = (14, 15, 17)
# Commits do not have to survive a power cut here; a killed server loses nothing even so.
TEST_SETTINGS: dict[str, str | int] = {
    "fsync": "off",
    "shared_buffers": "64MB",
    "log_min_duration_statement": 5000,
    "max_prepared_transactions": 20,
}


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
    _was_stopped: bool = False
    _ready: ReadyDatabases | None = None

    @classmethod
    def start_in(cls, folder: Path, version: int, settings: dict[str, str | int] | None = None) -> "PostgresServer":
        programs = npm_programs(version) if version in NPM_VERSIONS else None
        if programs and not programs.exists():
            unavailable(f"PostgreSQL {version} is not installed: tests/services/install-postgres does it")
        server = cls(EmbeddedPostgres(folder, version, TEST_SETTINGS | (settings or {}), programs=programs))
        server.start()
        with server._admin() as admin:
            if version >= 16:
                # Each login of a role computes as many hashes: two milliseconds with the 4096 that are usual.
                admin.execute("set scram_iterations = 1")
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

    @property
    def clients(self) -> Path:
        """The folder of pg_dump and pg_restore. Servers from npm come without: the next wheel has them."""
        return _postgres_programs(16 if self.version <= 16 else 18)

    def start(self) -> None:
        self.process.start()

    def stop(self) -> None:
        self._was_stopped = True
        self.process.stop()

    def kill(self) -> None:
        """As in a crash."""
        self._was_stopped = True
        self.process.kill()

    def restart(self) -> None:
        self._was_stopped = True
        self.process.restart()

    def close(self) -> None:
        """The server is no longer used."""
        if self._ready:
            self._ready.close()
        self.process.kill()

    def take_database(self) -> Database:
        """A database that is migrated, made ahead. Give it back."""
        if self._ready is None:
            self._make_template()
            self._ready = ReadyDatabases(self.admin_url, lambda admin: self._copy(admin, TEMPLATE), _drop)
        return self._whole(Database(self, self._ready.take()))

    def give_back_database(self, database: Database) -> None:
        """Cuts off the remaining connections, a moment later."""
        assert self._ready
        self._ready.give_back(database.name)

    def create_database(self, *, migrated: bool = True) -> Database:
        """A new database: a copy of the migrated template, or an empty one."""
        if migrated:
            self._make_template()
        with self._admin() as admin:
            made = Database(self, self._copy(admin, TEMPLATE if migrated else "template1"))
        return self._whole(made) if migrated else made

    def drop_database(self, database: Database) -> None:
        """Cuts off the remaining connections."""
        self.start()
        with self._admin() as admin:
            _drop(admin, database.name)

    def _whole(self, database: Database) -> Database:
        """A crash empties what is not logged, also in the template: nothing was forgotten in a new database, though."""
        if self._was_stopped:
            with database.connect() as connection:
                connection.execute("insert into tide.lease_memory default values on conflict do nothing")
        return database

    def _make_template(self) -> None:
        if not self._has_template:
            with self._admin() as admin:
                migrate(Database(self, self._copy(admin, "template1", TEMPLATE)).url)
            self._has_template = True

    def _copy(self, admin: "psycopg.Connection[Any]", template: str, name: str = "") -> str:
        name = name or f"test_{next(self._numbers)}"
        # Copied file by file: block by block through the log takes two to four times as long. 14 knows only this way.
        how = sql.SQL("strategy file_copy" if self.version >= 15 else "")
        statement = sql.SQL("create database {} owner {} template {} {}")
        admin.execute(statement.format(*map(sql.Identifier, (name, OWNER, template)), how))
        return name

    def _admin(self) -> "psycopg.Connection[Any]":
        return psycopg.connect(self.admin_url, autocommit=True)


def npm_programs(version: int) -> Path:
    """Where tests/services/install-postgres puts them."""
    return ROOT / f".cache/postgres-npm/node_modules/postgres{version}/native/bin"


def _drop(admin: "psycopg.Connection[Any]", name: str) -> None:
    for (gid,) in admin.execute("select gid from pg_prepared_xacts where database = %s", [name]).fetchall():
        with psycopg.connect(admin.info.dsn, password=admin.info.password, dbname=name, autocommit=True) as inside:
            inside.execute(sql.SQL("rollback prepared {}").format(sql.Literal(gid)))
    admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
