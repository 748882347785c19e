"""Code that was written for PgRelay runs unchanged, but for the import."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from relay.jobs.errors import BadArguments, IdempotencyConflict, UnknownQueue
from relay.jobs.pgrelay import EnqueueResult, PgRelayClient, SyncPgRelayClient
from tests.services.postgres import Database

Work = Callable[[async_sessionmaker[AsyncSession]], Awaitable[Any]]


@pytest.fixture
def client(database: Database, monkeypatch: pytest.MonkeyPatch) -> PgRelayClient:
    monkeypatch.setenv("PGRELAY_DATABASE_URL", _of_asyncpg(database.url))
    return PgRelayClient.from_env()


def test_the_example_of_the_reference(database: Database, client: PgRelayClient) -> None:
    """An order and its webhook in one transaction; the queue is made by the first enqueue."""
    order_id = "7b0e"

    async def example(session_factory: async_sessionmaker[AsyncSession]) -> EnqueueResult:
        async with session_factory() as session, session.begin():
            await session.execute(sqlalchemy.text("insert into orders values (:id)"), {"id": order_id})

            await client.enqueue_http(
                session=session,
                name="order.webhook",
                url="https://example.com/webhooks/orders",
                json_body={"order_id": order_id},
                idempotency_key=f"order-webhook:{order_id}",
                trace_id="trace-1",
            )
            return await client.enqueue_handler(
                session=session,
                name="orders.recalculate_totals",
                payload={"order_id": order_id},
                queue_name="default",
                idempotency_key=f"recalculate:{order_id}",
            )

    _make_orders(database)
    result = _run(database, example)
    assert result == EnqueueResult(result.job_id, True, "default", "pending", f"recalculate:{order_id}")
    assert isinstance(result.job_id, UUID)
    with database.connect() as connection:
        assert connection.execute("select * from orders").fetchall() == [(order_id,)]
        jobs = connection.execute("select kind::text, name, payload, trace_id from tide.job order by id").fetchall()
    assert jobs == [
        (
            "h",
            "order.webhook",
            {"url": "https://example.com/webhooks/orders", "method": "POST", "json": {"order_id": order_id}},
            "trace-1",
        ),
        ("p", "orders.recalculate_totals", {"order_id": order_id}, None),
    ]


def test_what_rolls_back_was_never_enqueued(database: Database, client: PgRelayClient) -> None:
    async def rolled_back(session_factory: async_sessionmaker[AsyncSession]) -> None:
        async with session_factory() as session:
            await client.enqueue_handler(session=session, name="x", payload={})
            await session.rollback()

    _run(database, rolled_back)
    assert _count(database) == 0


def test_a_key_that_is_used_again_gives_the_first_job_and_an_error_rolls_nothing_back(
    database: Database, client: PgRelayClient
) -> None:
    _make_orders(database)

    async def work(session_factory: async_sessionmaker[AsyncSession]) -> tuple[EnqueueResult, EnqueueResult]:
        async with session_factory() as session, session.begin():
            first = await client.enqueue_handler(session=session, name="x", payload={"a": 1}, idempotency_key="k")
        async with session_factory() as session, session.begin():
            await session.execute(sqlalchemy.text("insert into orders values ('kept')"))
            again = await client.enqueue_handler(session=session, name="x", payload={"a": 1}, idempotency_key="k")
            async with session.begin_nested() as savepoint:
                with pytest.raises(IdempotencyConflict, match=str(first.job_id)):
                    await client.enqueue_handler(session=session, name="x", payload={"a": 2}, idempotency_key="k")
                await savepoint.rollback()
            with pytest.raises(BadArguments, match="one body"):
                await client.enqueue_http(
                    session=session, name="x", url="https://example.com", json_body={}, body_base64="aGk="
                )
        return first, again

    first, again = _run(database, work)
    assert again == EnqueueResult(first.job_id, False, "default", "pending", "k")
    with database.connect() as connection:
        assert connection.execute("select * from orders").fetchall() == [("kept",)]


def test_a_session_that_blocks_has_a_client_of_its_own(database: Database, client: PgRelayClient) -> None:
    blocking = SyncPgRelayClient(database.url)
    with psycopg.connect(database.url) as connection:
        made = blocking.enqueue_http(session=connection, name="x", url="https://example.com", method="PUT", priority=5)
        assert (made.created, made.status) == (True, "pending")
        assert _count(database) == 0  # it is the caller who commits
    assert _count(database) == 1
    with pytest.raises(TypeError, match="unknown option retries"):
        blocking.enqueue_handler(session=None, name="x", payload={}, retries=3)  # type: ignore[call-arg]


def test_without_a_url_the_queue_must_exist(database: Database) -> None:
    with database.connect() as connection, pytest.raises(UnknownQueue, match="job_queue_create"):
        SyncPgRelayClient().enqueue_handler(session=connection, name="x", payload={})


def _make_orders(database: Database) -> None:
    with psycopg.connect(database.url) as connection:
        connection.execute("create table orders (id text)")


def _count(database: Database) -> int:
    with database.connect() as connection:
        row = connection.execute("select count(*) from tide.job").fetchone()
    assert row
    return int(row[0])


def _run(database: Database, work: Work) -> Any:
    async def run() -> Any:
        engine = create_async_engine(_of_asyncpg(database.url))
        try:
            return await work(async_sessionmaker(engine, expire_on_commit=False))
        finally:
            await engine.dispose()

    return asyncio.run(run())


def _of_asyncpg(url: str) -> str:
    return url.replace("postgresql://", "postgresql+asyncpg://", 1)
