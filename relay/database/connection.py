"""PostgreSQL connections, and the one table from psycopg's errors to ours."""

import re
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, LiteralString

import psycopg
import psycopg_pool
from psycopg import errors as pg

from relay.database import pooler
from relay.database.values import ADAPTERS
from relay.errors import ConfigError, MigrationError, NotConnected, RelayError
from relay.masking import mask
from relay.reasons import reason_of
from relay.settings import Settings
from relay.sql import query

Connection = psycopg.Connection[tuple[Any, ...]]
Pool = psycopg_pool.ConnectionPool[Connection]

VALUES: dict[str, Any] = {"client_encoding": "UTF8"}
"""Arguments for every connection that we open, also in the SDK; those of the application are left as they are. Told at
the start, so that they hold for the first statement too; what else a session relies on is `values`."""

READ_ONLY = "read_only"

# The first line that matches decides. What matches none is a bug, and is not translated.
_ERRORS: tuple[tuple[type[Exception], type[RelayError], str], ...] = (
    (pg.QueryCanceled, NotConnected, "timeout"),
    (pg.IdleInTransactionSessionTimeout, NotConnected, "timeout"),
    (pg.LockNotAvailable, NotConnected, "locked"),
    # A standby, after a failover, or a service whose disk is full: another session, later, may write.
    (pg.ReadOnlySqlTransaction, NotConnected, READ_ONLY),
    (pg.UndefinedTable, MigrationError, "schema"),
    (pg.UndefinedFunction, MigrationError, "schema"),
    (pg.UndefinedColumn, MigrationError, "schema"),
    (pg.InvalidSchemaName, MigrationError, "schema"),
    (pg.InsufficientPrivilege, ConfigError, "privilege"),
    (pg.InvalidPassword, ConfigError, "auth"),
    (pg.InvalidAuthorizationSpecification, ConfigError, "auth"),
    (psycopg_pool.PoolTimeout, NotConnected, "timeout"),
    (psycopg_pool.PoolClosed, NotConnected, "closed"),
    (psycopg.OperationalError, NotConnected, "not_connected"),
    (psycopg.InterfaceError, NotConnected, "not_connected"),
    (psycopg.ProgrammingError, ConfigError, "statement"),
)
_HINTS = {
    "schema": "; apply the migrations: relay migrate",
    "privilege": "; see docs/security.md for what each role needs",
    "auth": "; check the user and the password in RELAY_POSTGRES_URL (or --postgres-url)",
}
"""By code: what to do about it. Where the text says that itself, there is none."""
_BAD_URL = "PostgreSQL: the URL cannot be read: {}; correct RELAY_POSTGRES_URL (or --postgres-url)"
_CHECK = "; check that PostgreSQL runs there, and RELAY_POSTGRES_URL (or --postgres-url)"
_CORRECT = "; correct RELAY_POSTGRES_URL (or --postgres-url)"
"""Where a server answers, and refuses this user, password or database. Some refusals pass by themselves."""
_PASSING = re.compile("starting up|shutting down|recovery|too many|slots are reserved|not yet accepting", re.IGNORECASE)
_LIBPQ_ASKS = re.compile(r"\s*Is the server running .*?\?", re.DOTALL)


@contextmanager
def database_errors() -> Iterator[None]:
    """Translates psycopg's errors into NotConnected, MigrationError or ConfigError. Bugs are not translated."""
    try:
        yield
    except (psycopg.Error, psycopg_pool.PoolClosed, psycopg_pool.PoolTimeout) as error:
        for foreign, ours, code in _ERRORS:
            if isinstance(error, foreign):
                text = mask(reason_of(error)) or type(error).__name__
                if ours is NotConnected:
                    is_what = " is read-only" if code == READ_ONLY else ""
                    raise NotConnected(f"PostgreSQL{is_what}: {text}", code=code) from error
                if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:
                    raise ConfigError(_BAD_URL.format(text)) from error
                raise ours(f"PostgreSQL: {text}{_HINTS.get(code, '')}") from error
        raise


def require_writable(connection: Connection) -> None:
    """Raises NotConnected with code `read_only` while the server takes no writes."""
    with database_errors():
        row = connection.execute(query("read_only")).fetchone()
    if row is not None:
        raise NotConnected(f"PostgreSQL is read-only: {row[0]}", code=READ_ONLY)


def storable(text: str) -> str:
    """The text as PostgreSQL can hold it, without NUL and lone surrogates: a foreign error may hold any text."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def connection_options(settings: Settings, application_name: str) -> dict[str, Any]:
    """Keyword arguments of psycopg: every wait has a limit, and a dead peer is detected within half a minute."""
    return {
        **VALUES,
        "autocommit": True,
        "context": ADAPTERS,
        "application_name": application_name,
        "connect_timeout": max(2, round(settings.connect_timeout_seconds)),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }


def values(*, shared: bool = False) -> tuple[LiteralString, dict[str, bool]]:
    """The statement, and its parameters, that each session of ours begins with, also those that are asynchronous.

    `shared`: a pooler gives each transaction another session.
    """
    return query("session_values"), {"shared": shared}


def configure(connection: Connection, settings: Settings) -> None:
    """Sets the session. Not by start-up options, which connection poolers refuse."""
    connection.execute(*values())
    connection.execute(query("session"), {"statement_timeout": f"{round(settings.statement_timeout_seconds * 1000)}ms"})


def connect(settings: Settings, application_name: str) -> Connection:
    """One connection in autocommit. Raises NotConnected, or ConfigError if the server refuses the role."""
    with database_errors():
        connection = _open(settings, application_name)
        try:
            if suit_pooler(connection) and is_shared(connection, settings):
                connection.execute(*values(shared=True))
            else:
                configure(connection, settings)
        except BaseException:
            connection.close()
            raise
        return connection


def suit_pooler(connection: Connection) -> bool:
    """Whether a pooler is in between; if so, this connection then relies on nothing that its next session may lack.

    Other clients meet the statements that one prepares, also in session mode if the pool does not reset sessions.
    Messages must be read with a later snapshot than the horizon, whatever the database's default.
    """
    if not pooler.is_between(connection):
        return False
    connection.prepare_threshold = None
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    return True


def is_shared(connection: Connection, settings: Settings) -> bool:
    """Whether that pooler gives each transaction another session: then other clients would meet its settings."""
    another = "tide-relay looks for a pooler"
    return pooler.shares_sessions(connection, lambda: _open(settings, another), settings.connect_timeout_seconds)


def _open(settings: Settings, application_name: str) -> Connection:
    with opening():
        return psycopg.connect(settings.postgres_url, **connection_options(settings, application_name))


@contextmanager
def opening() -> Iterator[None]:
    """Says of a connection that was not made what to do about it. Raises NotConnected."""
    try:
        yield
    except psycopg.OperationalError as error:
        if error.sqlstate is not None or isinstance(error, pg.ConnectionTimeout):
            raise
        text = mask(_LIBPQ_ASKS.sub("", reason_of(error)))
        advice = _CHECK if "FATAL" not in text else "" if _PASSING.search(text) else _CORRECT
        raise NotConnected(f"PostgreSQL: {text}{advice}") from error


@contextmanager
def pooled(pool: Pool, timeout_seconds: float | None = None) -> Iterator[Connection]:
    """A session of a pool. One that could only read is not kept: the next may be one of the new primary."""
    with pool.connection(timeout_seconds) as connection:
        try:
            yield connection
        except (NotConnected, pg.ReadOnlySqlTransaction) as error:
            if isinstance(error, psycopg.Error) or error.code == READ_ONLY:
                connection.close()
            raise


@contextmanager
def custom_plans(connection: Connection) -> Iterator[None]:
    """Within it, a session of a worker plans for the values at hand, as other sessions of ours do.

    Behind a pooler it does as its role is set to. Raises what psycopg raises.
    """
    if connection.prepare_threshold is None:
        yield
        return
    connection.execute(query("session_plans"), {"mode": "force_custom_plan"})
    try:
        yield
    finally:
        with suppress(psycopg.Error):  # lost, and the pool sees it
            connection.execute(query("session_plans"), {"mode": "auto"})


def _check_if_told(connection: Connection) -> None:
    """No drain fails on a session that a restart of the server has ended: its end, or why, waits to be read. A session
    that nothing came for is as good as it was, and is not asked: that would be a round trip for each drain."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        psycopg_pool.ConnectionPool.check_connection(connection)


def make_worker_pool(settings: Settings, threads: int) -> Pool:
    """The sessions of a worker process, one for each thread, opened lazily; waiting for one has a limit."""

    # Checked once: a pool in session mode that has no session left is slow to answer.
    shared: list[bool] = []

    def prepare(connection: Connection) -> None:
        if suit_pooler(connection):
            if not shared:
                shared.append(is_shared(connection, settings))
            if shared[0]:
                connection.execute(*values(shared=True))
                return
        configure(connection, settings)
        connection.execute(query("worker_session"))

    name = "tide-relay worker"
    return psycopg_pool.ConnectionPool(
        settings.postgres_url,
        kwargs=connection_options(settings, name),
        configure=prepare,
        check=_check_if_told,
        min_size=0,
        max_size=threads,
        timeout=settings.connect_timeout_seconds,
        max_idle=300.0,
        reconnect_timeout=settings.connect_timeout_seconds,
        open=True,
        name=name,
    )
