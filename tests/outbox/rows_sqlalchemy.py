"""The connections and sessions of SQLAlchemy and SQLModel."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
import sqlmodel
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sqlalchemy_asyncio
from sqlmodel.ext.asyncio.session import AsyncSession as SqlmodelAsyncSession

from relay import outbox
from tests.outbox.callers import Caller, Do, event_loop, row


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
