"""Handlers in a transaction of the application's own library, and coroutines: as exactly once as on psycopg."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import psycopg_pool
import pytest
import sqlalchemy
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from relay import inbox
from relay.errors import ConfigError
from relay.inbox import InboxMessage
from tests.outbox.rows import django_database
from tests.services.postgres import Database
from tests.sql.inbox.inboxes import call, claim, fill, names
from tests.waiting import wait_until

EFFECT = "insert into public.effect (event_id) values ('{}')"


@pytest.fixture
def db(database: Database) -> Iterator[Any]:
    with database.connect() as connection:
        call(connection, "tide.inbox_create('commands')")
        connection.execute("create table public.effect (event_id text, n bigint generated always as identity)")
        yield connection


def effects(db: Any) -> list[str]:
    return [row[0] for row in db.execute("select event_id from public.effect order by n")]


def of_driver(database: Database, driver: str) -> str:
    return database.url.replace("postgresql://", f"postgresql+{driver}://")


Execute = Callable[[Any, str], object]
Way = tuple[Callable[[], Any], Execute]


def in_session(database: Database) -> Iterator[Way]:
    engine = sqlalchemy.create_engine(of_driver(database, "psycopg"))
    yield orm.sessionmaker(engine).begin, lambda session, text: session.execute(sqlalchemy.text(text))
    engine.dispose()


def in_engine(database: Database) -> Iterator[Way]:
    engine = sqlalchemy.create_engine(of_driver(database, "psycopg2"))
    yield engine.begin, lambda connection, text: connection.exec_driver_sql(text)
    engine.dispose()


def in_django(database: Database) -> Iterator[Way]:
    with django_database(database.url):
        from django.db import transaction

        yield transaction.atomic, lambda connection, text: connection.cursor().execute(text)


def in_psycopg_pool(database: Database) -> Iterator[Way]:
    with psycopg_pool.ConnectionPool(database.url, min_size=1) as pool:
        yield pool.connection, lambda connection, text: connection.execute(text)


SYNC = [in_session, in_engine, in_django, in_psycopg_pool]


@pytest.fixture(params=SYNC, ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest, database: Database) -> Iterator[Way]:
    with contextlib.contextmanager(request.param)(database) as opened:
        yield opened


def test_the_work_of_a_handler_and_the_mark_are_one_transaction(db: Any, database: Database, way: Way) -> None:
    begin, execute = way
    fill(db, "a", "raises", "hides", "b", payload='{"n": 1}')
    seen = []

    def handle(connection: Any, message: InboxMessage) -> None:
        seen.append((message.event_id, message.payload))
        execute(connection, EFFECT.format(message.event_id))
        assert effects(db) == ["a"][: len(seen) - 1]
        if message.event_id == "raises":
            raise ValueError("no such thing")
        if message.event_id == "hides":
            with contextlib.suppress(Exception):
                execute(connection, "select 1 / 0")

    assert inbox.run(database.url, "commands", handle, transaction=begin, until_empty=True) == 2
    assert seen == [("a", {"n": 1}), ("raises", {"n": 1}), ("hides", {"n": 1}), ("b", {"n": 1})]
    assert effects(db) == ["a", "b"]
    failed = db.execute("select event_id, error from tide.commands where retry_count = 1 order by 1").fetchall()
    assert failed[1][0] == "raises" and failed[1][1].startswith(
        "ValueError: no such thing (inbox/test_transactions.py:"
    )
    assert failed[0] == ("hides", "RuntimeError: the handler continued after an error had ended its transaction")
    assert call(db, "count(*) from tide.commands where processed_at is not null") == 2


def test_a_lost_connection_is_replaced_whether_at_work_or_idle(db: Any, database: Database, way: Way) -> None:
    begin, execute = way
    fill(db, "a", "b", "c")
    seen: list[str] = []
    sessions: list[int] = []

    def lose() -> None:
        assert call(db, "pg_terminate_backend(%s, 5000)", sessions[-1])

    def begin_after_loss() -> Any:
        if seen == ["a", "b"]:
            seen.append("lost before c")
            lose()
        return begin()

    def handle(connection: Any, message: InboxMessage) -> None:
        seen.append(message.event_id)
        execute(connection, EFFECT.format(message.event_id))
        sessions.append(call(db, "pid from pg_stat_activity where xact_start is not null and pid <> pg_backend_pid()"
                                 " and datname = current_database()"))  # fmt: skip
        if seen == ["a"]:
            lose()

    for _ in range(2):
        inbox.run(database.url, "commands", handle, transaction=begin_after_loss, until_empty=True)
        db.execute("update tide.commands set available_at = null where processed_at is null")
    assert seen[:3] == ["a", "b", "lost before c"]
    assert sorted(effects(db)) == ["a", "b", "c"]
    assert call(db, "array_agg(retry_count order by event_id) from tide.commands") == [1, 0, 0]


def test_what_does_not_commit_or_is_no_transaction_here_is_refused(db: Any, database: Database) -> None:
    fill(db, "a")
    engine = sqlalchemy.create_engine(of_driver(database, "psycopg"))
    make = orm.sessionmaker(engine)
    lite = sqlalchemy.create_engine("sqlite://")

    def handle(connection: Any, message: InboxMessage) -> None:
        pass

    async def coroutine(connection: Any, message: InboxMessage) -> None:
        pass

    for begin, text in (
        (make, "was not committed: give as transaction= what commits in this database, such as Session.begin"),
        (lite.begin, "transaction= cannot be used for message a: .* of sqlite, and not of PostgreSQL"),
        (lambda: contextlib.nullcontext(None), "transaction= cannot be used for message a: .*NoneType is not"),
    ):
        with pytest.raises(ConfigError, match=text):
            inbox.run(database.url, "commands", handle, transaction=begin, until_empty=True)
        db.execute("select tide.replay_inbox_messages('commands', '{a}')")
        db.execute("update tide.commands set available_at = null, claimed_by = null")
    with pytest.raises(ConfigError, match=r"await inbox\.run_async"):
        inbox.run(database.url, "commands", coroutine, until_empty=True)
    with pytest.raises(ConfigError, match="was not committed"):
        asyncio.run(not_committing(database, coroutine))
    assert call(db, "max(retry_count) from tide.commands") == 0
    engine.dispose()


async def not_committing(database: Database, coroutine: Any) -> None:
    engine = create_async_engine(of_driver(database, "asyncpg"))
    try:
        await inbox.run_async(database.url, "commands", coroutine, transaction=engine.connect, until_empty=True)
    finally:
        await engine.dispose()


# Coroutines


@asynccontextmanager
async def in_own(database: Database) -> AsyncIterator[tuple[Any, Any]]:
    yield None, lambda connection, text: connection.execute(text)


@asynccontextmanager
async def in_async_session(database: Database) -> AsyncIterator[tuple[Any, Any]]:
    engine = create_async_engine(of_driver(database, "asyncpg"))
    yield async_sessionmaker(engine).begin, lambda session, text: session.execute(sqlalchemy.text(text))
    await engine.dispose()


@asynccontextmanager
async def in_asyncpg(database: Database) -> AsyncIterator[tuple[Any, Any]]:
    @asynccontextmanager
    async def begin() -> AsyncIterator[Any]:
        async with pool.acquire() as connection, connection.transaction():
            yield connection

    async with asyncpg.create_pool(database.url, min_size=1) as pool:
        yield begin, lambda connection, text: connection.execute(text)


@pytest.mark.parametrize("way", [in_own, in_async_session, in_asyncpg])
def test_coroutines_are_handled_on_the_event_loop_in_their_transaction(db: Any, database: Database, way: Any) -> None:
    fill(db, "a", "raises", "hides", "b")
    threads = set()

    async def work() -> int:
        async with way(database) as (begin, execute):

            async def handle(connection: Any, message: InboxMessage) -> None:
                threads.add(threading.current_thread())
                await execute(connection, EFFECT.format(message.event_id))
                if message.event_id == "raises":
                    raise ValueError("no such thing")
                if message.event_id == "hides":
                    with contextlib.suppress(Exception):
                        await execute(connection, "select 1 / 0")

            return await inbox.run_async(database.url, "commands", handle, transaction=begin, until_empty=True)

    assert asyncio.run(work()) == 2
    assert threads == {threading.main_thread()}
    assert effects(db) == ["a", "b"]
    assert call(db, "array_agg(event_id order by event_id) from tide.commands where retry_count = 1") == [
        "hides",
        "raises",
    ]


def test_a_cancelled_run_gives_its_message_back_and_counts_no_failure(db: Any, database: Database) -> None:
    fill(db, "a", "b")

    async def work() -> None:
        begun = asyncio.Event()

        async def handle(connection: inbox.AsyncConnection, message: InboxMessage) -> None:
            await connection.execute(EFFECT.format(message.event_id).encode())
            begun.set()
            await asyncio.Event().wait()

        running = asyncio.create_task(inbox.run_async(database.url, "commands", handle))
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(work())
    assert (effects(db), claim(db)) == ([], ["a", "b"])
    assert call(db, "max(retry_count) from tide.commands") == 0
    inbox_sessions = "count(*) from pg_stat_activity where application_name like 'tide-relay inbox%%'"
    wait_until(lambda: call(db, inbox_sessions) == 0)


def test_runs_share_an_event_loop_and_end_by_their_stop(db: Any, database: Database) -> None:
    fill(db, "a", "b")

    async def work() -> list[int]:
        stop, both = asyncio.Event(), asyncio.Barrier(2)

        async def handle(connection: inbox.AsyncConnection, message: InboxMessage) -> None:
            await both.wait()
            stop.set()

        runs = [inbox.run_async(database.url, "commands", handle, batch_size=1, stop=stop) for _ in range(2)]
        return await asyncio.gather(*runs)

    assert asyncio.run(work()) == [1, 1]
    assert names(db, "commands_pending") == []
