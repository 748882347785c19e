"""Each kind of connection that an application may have, with the calls that its own library has for transactions.

`ROWS` is the table of `relay.database.callers`, for tests: a name, and a context that opens such a connection.
"""

import asyncio
import io
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import django
import psycopg
import psycopg2
import psycopg2.extras
import sqlalchemy
import sqlmodel
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sqlalchemy_asyncio
from sqlmodel.ext.asyncio.session import AsyncSession as SqlmodelAsyncSession

from relay import outbox

Do = Callable[[], object]


@dataclass
class Caller:
    """A connection in a transaction of the application's."""

    connection: Any
    """What the application gives."""
    execute: Callable[[str], object]
    commit: Do
    rollback: Do
    savepoint: Callable[[], Do]
    """Opens one, and gives what rolls back to it."""
    run: Callable[[Coroutine[Any, Any, Any]], Any] | None = None
    """Runs a coroutine to its end, where the connection is asynchronous."""

    def publish(self, box: str, payload: Any, **options: Any) -> int:
        if self.run:
            return self.run(outbox.publish_async(self.connection, box, payload, **options))
        return outbox.publish(self.connection, box, payload, **options)

    def publish_many(self, box: str, messages: list[Any]) -> list[int]:
        if self.run:
            return self.run(outbox.publish_many_async(self.connection, box, messages))
        return outbox.publish_many(self.connection, box, messages)


Opened = AbstractContextManager[Caller]
ROWS: dict[str, Callable[[str], Opened]] = {}


def row(name: str, **options: Any) -> Callable[[Callable[..., Iterator[Caller]]], Callable[..., Iterator[Caller]]]:
    """A function may be several rows, with other options each."""

    def add(function: Callable[..., Iterator[Caller]]) -> Callable[..., Iterator[Caller]]:
        ROWS[name] = lambda url: contextmanager(function)(url, **options)
        return function

    return add


def sql_savepoint(execute: Callable[[str], object]) -> Callable[[], Do]:
    def begin() -> Do:
        execute("savepoint here")
        return lambda: execute("rollback to savepoint here")

    return begin


@contextmanager
def event_loop() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    with asyncio.Runner() as runner:
        yield runner.run


# psycopg


@row("psycopg")
@row("psycopg, settings", row_factory=dict_row, cursor_factory=psycopg.RawCursor, prepare_threshold=0)
@row("psycopg, cursor", of=lambda connection: connection.cursor())
def _psycopg(url: str, of: Callable[[Any], Any] = lambda connection: connection, **options: Any) -> Iterator[Caller]:
    with psycopg.connect(url, **options) as connection:
        yield Caller(
            of(connection),
            connection.execute,
            connection.commit,
            connection.rollback,
            sql_savepoint(connection.execute),
        )


@row("psycopg, pipeline")
def _psycopg_pipeline(url: str) -> Iterator[Caller]:
    with psycopg.connect(url) as connection, connection.pipeline() as pipeline:

        def execute(statement: str) -> None:
            connection.execute(statement)
            pipeline.sync()

        yield Caller(connection, execute, connection.commit, connection.rollback, sql_savepoint(execute))


@row("psycopg, async")
@row("psycopg, async cursor", of=lambda connection: connection.cursor(row_factory=dict_row))
def _psycopg_async(url: str, of: Callable[[Any], Any] = lambda connection: connection) -> Iterator[Caller]:
    with event_loop() as run:
        connection = run(psycopg.AsyncConnection.connect(url))

        def execute(statement: str) -> None:
            run(connection.execute(statement))

        yield Caller(
            of(connection),
            execute,
            lambda: run(connection.commit()),
            lambda: run(connection.rollback()),
            sql_savepoint(execute),
            run,
        )
        run(connection.close())


# psycopg2


@row("psycopg2")
@row("psycopg2, cursor", of=lambda connection: connection.cursor())
@row("psycopg2, settings", connection_factory=psycopg2.extras.LoggingConnection, named=True)
def _psycopg2(
    url: str, of: Callable[[Any], Any] = lambda connection: connection, named: bool = False, **options: Any
) -> Iterator[Caller]:
    with closing(psycopg2.connect(url, **options)) as connection:
        if named:
            connection.initialize(io.StringIO())
        else:
            connection.cursor_factory = psycopg2.extras.RealDictCursor

        def execute(statement: str) -> None:
            with connection.cursor() as cursor:
                cursor.execute(statement)

        yield Caller(of(connection), execute, connection.commit, connection.rollback, sql_savepoint(execute))


# SQLAlchemy and SQLModel


def _of_driver(url: str, driver: str) -> str:
    return url.replace("postgresql://", f"postgresql+{driver}://", 1)


def _nested(begin: Callable[[], Any]) -> Callable[[], Do]:
    return lambda: begin().rollback


@row("SQLAlchemy Session, psycopg")
@row("SQLAlchemy Session, psycopg2", driver="psycopg2")
@row("SQLAlchemy scoped_session", made=lambda engine: orm.scoped_session(orm.sessionmaker(engine)))
@row("SQLModel Session", made=sqlmodel.Session)
def _session(url: str, driver: str = "psycopg", made: Callable[[Any], Any] = orm.Session) -> Iterator[Caller]:
    engine = sqlalchemy.create_engine(_of_driver(url, driver))
    session = made(engine)

    def execute(statement: str) -> None:
        session.connection().exec_driver_sql(statement)

    yield Caller(session, execute, session.commit, session.rollback, _nested(session.begin_nested))
    session.close()
    engine.dispose()


@row("SQLAlchemy Connection, psycopg")
@row("SQLAlchemy Connection, psycopg2", driver="psycopg2")
def _connection(url: str, driver: str = "psycopg") -> Iterator[Caller]:
    engine = sqlalchemy.create_engine(_of_driver(url, driver))
    with engine.connect() as connection:

        def execute(statement: str) -> None:
            connection.exec_driver_sql(statement)

        yield Caller(connection, execute, connection.commit, connection.rollback, _nested(connection.begin_nested))
    engine.dispose()


def _async_scoped(engine: Any) -> Any:
    made = sqlalchemy_asyncio.async_sessionmaker(engine)
    return sqlalchemy_asyncio.async_scoped_session(made, scopefunc=lambda: None)


@row("SQLAlchemy AsyncSession, psycopg", driver="psycopg")
@row("SQLAlchemy AsyncSession, asyncpg")
@row("SQLAlchemy async_scoped_session", made=_async_scoped)
@row("SQLModel AsyncSession", made=SqlmodelAsyncSession)
@row("SQLAlchemy AsyncConnection, asyncpg", made=lambda engine: engine.connect())
@row("SQLAlchemy AsyncConnection, psycopg", driver="psycopg", made=lambda engine: engine.connect())
def _async_session(
    url: str, driver: str = "asyncpg", made: Callable[[Any], Any] = sqlalchemy_asyncio.AsyncSession
) -> Iterator[Caller]:
    with event_loop() as run:
        engine = sqlalchemy_asyncio.create_async_engine(_of_driver(url, driver))
        session = made(engine)
        is_connection = isinstance(session, sqlalchemy_asyncio.AsyncConnection)
        if is_connection:
            run(session.start())

        async def execute(statement: str) -> None:
            connection = session if is_connection else await session.connection()
            await connection.exec_driver_sql(statement)

        async def begin_nested() -> Any:
            return await session.begin_nested()

        def savepoint() -> Do:
            nested = run(begin_nested())
            return lambda: run(nested.rollback())

        yield Caller(
            session,
            lambda statement: run(execute(statement)),
            lambda: run(session.commit()),
            lambda: run(session.rollback()),
            savepoint,
            run,
        )
        run(session.close())
        run(engine.dispose())


@row("SQLAlchemy Session within run_sync")
def _within_run_sync(url: str) -> Iterator[Caller]:
    """The synchronous session of an asynchronous one, as the functions under `run_sync` have it."""
    with contextmanager(_async_session)(url) as caller:

        def within(call: Callable[..., Any], *given: Any, **options: Any) -> Any:
            assert caller.run
            return caller.run(caller.connection.run_sync(call, *given, **options))

        class Within(Caller):
            def publish(self, box: str, payload: Any, **options: Any) -> int:
                return within(outbox.publish, box, payload, **options)

            def publish_many(self, box: str, messages: list[Any]) -> list[int]:
                return within(outbox.publish_many, box, messages)

        yield Within(**vars(caller))


# asyncpg


@row("asyncpg")
@row("asyncpg, codecs", with_codecs=True)
def _asyncpg(url: str, with_codecs: bool = False) -> Iterator[Caller]:
    with event_loop() as run:
        connection = run(asyncpg.connect(url))
        if with_codecs:
            codec = {"schema": "pg_catalog", "encoder": repr, "decoder": repr}
            run(connection.set_type_codec("jsonb", **codec))
        yield from _in_asyncpg(connection, run)
        run(connection.close())


@row("asyncpg, of a pool")
def _asyncpg_pool(url: str) -> Iterator[Caller]:
    with event_loop() as run:
        pool = run(_made(asyncpg.create_pool(url, min_size=1, max_size=1)))
        connection = run(_made(pool.acquire()))
        yield from _in_asyncpg(connection, run)
        run(pool.release(connection))
        run(pool.close())


async def _made(awaitable: Any) -> Any:
    return await awaitable


def _in_asyncpg(connection: Any, run: Any) -> Iterator[Caller]:
    def execute(statement: str) -> None:
        run(connection.execute(statement))

    def end(how: str) -> Do:
        return lambda: execute(f"{how}; begin")

    execute("begin")
    yield Caller(connection, execute, end("commit"), end("rollback"), sql_savepoint(execute), run)
    execute("rollback")


# Django


@row("Django connection", of=lambda connections: __import__("django.db").db.connection)
@row("Django connections[alias]", of=lambda connections: connections["default"])
@row("Django cursor", of=lambda connections: connections["default"].cursor())
@row("Django alias", of=lambda connections: "default")
def _django(url: str, of: Callable[[Any], Any]) -> Iterator[Caller]:
    with django_database(url) as connections:
        from django.db import transaction

        atomic = transaction.atomic()

        def end(undo: bool) -> None:
            transaction.set_rollback(undo)
            atomic.__exit__(None, None, None)
            atomic.__enter__()

        def execute(statement: str) -> None:
            with connections["default"].cursor() as cursor:
                cursor.execute(statement)

        def savepoint() -> Do:
            name = transaction.savepoint()
            return lambda: transaction.savepoint_rollback(name)

        atomic.__enter__()
        yield Caller(of(connections), execute, lambda: end(False), lambda: end(True), savepoint)
        transaction.set_rollback(True)
        atomic.__exit__(None, None, None)


@contextmanager
def django_database(url: str) -> Iterator[Any]:
    """Django, whose database `default` is this one; `connections`."""
    parts = conninfo_to_dict(url)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    default = {"ENGINE": "django.db.backends.postgresql"} | {ours: parts[theirs] for ours, theirs in names.items()}
    if not settings.configured:
        settings.configure(DATABASES={"default": default})
        django.setup()
    from django.db import connections

    connections["default"] = connections.create_connection("default")
    connections["default"].settings_dict |= default
    yield connections
    connections["default"].close()
