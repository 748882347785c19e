"""What is no connection, what PostgreSQL refuses, and what stays the driver's own error."""

import asyncio
from typing import Any

import psycopg
import psycopg_pool
import pytest
import sqlalchemy
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from relay import outbox
from relay.errors import MigrationError, RelayError
from relay.outbox import BadValue, Disabled, NotAllowed, TooLarge
from tests.outbox.rows import django_database
from tests.services.postgres import FLEET, Database

URL = "postgresql+psycopg://me:secret@localhost/app"


@pytest.fixture
def db(database: Database) -> Any:
    with database.connect() as connection:
        connection.execute("select tide.outbox_create('orders')")
        yield connection


def test_each_refusal_has_its_class_the_sentence_of_the_server_and_its_hint(db: Any, database: Database) -> None:
    fleet = database.fleet_url()
    with psycopg.connect(fleet) as stranger, pytest.raises(NotAllowed, match=r"permission denied for function") as told:
        outbox.publish(stranger, "orders", 1)
    assert told.value.sqlstate == "42501"
    assert isinstance(told.value.__cause__, psycopg.errors.InsufficientPrivilege)
    db.execute("select tide.outbox_grant_publish('orders', %s)", [FLEET])
    db.execute("select tide.outbox_create('others')")
    with psycopg.connect(fleet) as stranger:
        assert outbox.publish(stranger, "orders", 1) == 1
        with pytest.raises(NotAllowed, match=rf"role {FLEET} may not publish to outbox \"others\"\. Let the owner"):
            outbox.publish(stranger, "others", 1)
    with pytest.raises(TooLarge, match=r'outbox "orders" has 1048579 bytes, its limit is 1048576\. Nothing was'):
        outbox.publish(db, "orders", "x" * 1_048_575)
    with pytest.raises(TooLarge, match=r"^message 2 of the array: the message for outbox"):
        outbox.publish_many(db, "orders", [1, "x" * 1_048_575])
    assert outbox.publish_many(db, "orders", []) == []
    db.execute("select tide.outbox_disable('orders')")
    with pytest.raises(Disabled, match=r'outbox "orders" is disabled\. Enable it'):
        outbox.publish(db, "orders", 1)


def test_what_is_no_value_of_an_argument_is_refused_before_anything_is_sent(db: Any) -> None:
    with db.transaction():
        for wrong, text in (
            ({"key": 7}, "key: must be a text, not int"),
            ({"key": "a\0"}, "key: the text has the character NUL"),
            ({"key": "\udc80"}, "key: the text has half of a surrogate pair"),
            ({"headers": ["a"]}, "headers: must be a dict, not list"),
            ({"headers": {"a": {1}}}, "headers.a: a set has no order"),
        ):
            with pytest.raises(BadValue, match=f"^{text}") as refused:
                outbox.publish(db, "orders", {}, **wrong)
            assert refused.value.sqlstate is None
        for messages in ("text", {"a": 1}):
            with pytest.raises(BadValue, match=r"^messages: must be a list"):
                outbox.publish_many(db, "orders", messages)
        assert outbox.publish(db, "orders", {}) == 1


def test_without_the_schema_the_error_names_the_migrations(empty_database: Database) -> None:
    with (
        empty_database.connect() as connection,
        pytest.raises(MigrationError, match="apply the migrations: relay migrate"),
    ):
        outbox.publish(connection, "orders", 1)


def test_what_befalls_the_connection_stays_the_error_of_its_driver(db: Any, database: Database) -> None:
    with database.connect() as connection:
        connection.execute("set statement_timeout = '10ms'")
        db.execute(
            "create function public.slow() returns trigger language plpgsql as "
            "$$ begin perform pg_sleep(10); return new; end $$"
        )
        db.execute("create trigger slow before insert on tide.message for each row execute function public.slow()")
        with pytest.raises(psycopg.errors.QueryCanceled):
            outbox.publish(connection, "orders", 1)
        db.execute("select pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
        with pytest.raises(psycopg.OperationalError) as lost:
            outbox.publish(connection, "orders", 1)
        assert not isinstance(lost.value, RelayError)


def publish_async(*given: Any) -> Any:
    return asyncio.run(outbox.publish_async(*given))


def test_what_has_no_transaction_of_the_caller_is_refused_with_what_to_give() -> None:
    engine = sqlalchemy.create_engine(URL)
    async_engine = create_async_engine(URL)
    for given, text in (
        (engine, "an engine has no transaction of yours"),
        (async_engine, "an engine has no transaction of yours"),
        (orm.sessionmaker(engine), "this makes sessions"),
        (async_sessionmaker(async_engine), "this makes sessions"),
        (psycopg_pool.ConnectionPool(open=False), "a pool has no transaction of yours"),
        (object(), r"builtins.object is not a connection that is known here. Known are: psycopg 3 .* asyncpg"),
        (URL, "a text is no connection, unless"),
    ):
        for publish in (outbox.publish, publish_async):
            with pytest.raises(TypeError, match=text) as refused:
                publish(given, "orders", {})
            assert "secret" not in str(refused.value)


def test_the_wrong_function_or_another_database_is_refused_with_what_to_do(database: Database) -> None:
    async_session = AsyncSession(create_async_engine(URL))
    with pytest.raises(TypeError, match=r"AsyncSession is asynchronous: await the function of this name with _async"):
        outbox.publish(async_session, "orders", {})
    with database.connect() as connection, pytest.raises(TypeError, match=r"psycopg.Connection blocks its thread"):
        publish_async(connection, "orders", {})
    engine = sqlalchemy.create_engine("sqlite://")
    with orm.Session(engine) as session, pytest.raises(TypeError, match="SQLAlchemy is of sqlite, and not of"):
        outbox.publish(session, "orders", {})
    engine.dispose()
    with django_database(database.url) as connections:
        with pytest.raises(TypeError, match=r"blocks its thread: .* under asgiref's sync_to_async"):
            publish_async("default", "orders", {})
        with pytest.raises(TypeError, match=r"Django has no database 'other'. DATABASES has: default"):
            outbox.publish("other", "orders", {})
        with pytest.raises(TypeError, match="a text is no connection, unless"):
            outbox.publish(URL, "orders", {})
        with pytest.raises(TypeError, match="give one connection"):
            outbox.publish(connections, "orders", {})


def test_a_connection_that_streams_its_results_publishes_at_once(db: Any, database: Database) -> None:
    async def publish(url: str) -> list[int]:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            streaming = await connection.execution_options(yield_per=1)
            ids = await outbox.publish_many_async(streaming, "orders", [1, 2])
            await connection.commit()
        await engine.dispose()
        return ids

    url = database.url.replace("postgresql://", "postgresql+asyncpg://")
    assert asyncio.run(publish(url)) == [1, 2]
    assert db.execute("select count(*) from tide.message").fetchone() == (2,)
