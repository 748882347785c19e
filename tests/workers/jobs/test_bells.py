"""The session of an engine hears the bells of queues while no statement of its own runs, and with their answers."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from relay.errors import NotConnected
from relay.settings import Settings
from tests.services.postgres import Database
from tests.waiting import wait_until
from workers.jobs.store import NAME, Store

LIMIT_SECONDS = 20


def with_store(database: Database, body: Callable[[Store, list[str], asyncio.Event], Awaitable[None]]) -> None:
    async def run() -> None:
        rang: list[str] = []
        awake = asyncio.Event()

        def hear(outbox: str) -> None:
            rang.append(outbox)
            awake.set()

        store = Store(Settings(postgres_url=database.url), hear)
        await store.open()
        assert rang == [""], "what rang before was not heard"
        rang.clear()
        awake.clear()
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                await body(store, rang, awake)
        finally:
            await store.close()

    asyncio.run(run())


def test_a_bell_is_heard_while_the_session_is_idle(database: Database) -> None:
    async def body(store: Store, rang: list[str], awake: asyncio.Event) -> None:
        assert store.hears_bells
        with database.connect() as other:
            for outbox in ("jobs/mail", "jobs/reports"):
                with store.idle(awake.set):
                    other.execute("select pg_notify('tide_outbox_notify', %s)", [outbox])
                    await awake.wait()
                awake.clear()
        assert rang == ["jobs/mail", "jobs/reports"]

    with_store(database, body)


def test_its_own_bell_comes_with_the_answer_and_is_heard_though_nothing_more_arrives(database: Database) -> None:
    async def body(store: Store, rang: list[str], awake: asyncio.Event) -> None:
        await store.value("engine_ring", outbox="jobs/mail")
        with store.idle(awake.set):
            await awake.wait()
        assert rang == ["jobs/mail"]

    with_store(database, body)


def test_what_is_no_name_rings_nothing(database: Database) -> None:
    async def body(store: Store, rang: list[str], awake: asyncio.Event) -> None:
        with database.connect() as other, store.idle(awake.set):
            for text in ("[" * 7000, "", "jobs/mail"):
                other.execute("select pg_notify('tide_outbox_notify', %s)", [text])
            await awake.wait()
        assert rang == ["jobs/mail"]

    with_store(database, body)


def test_a_lost_session_wakes_the_engine_at_once(database: Database) -> None:
    async def body(store: Store, _: list[str], awake: asyncio.Event) -> None:
        async def sleep() -> Any:
            with store.idle(awake.set):
                await awake.wait()

        sleeping = asyncio.create_task(sleep())
        with database.connect() as owner:
            owner.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s", [NAME])
        with pytest.raises(NotConnected):
            await sleeping
        await store.close()
        assert not store.hears_bells
        await store.open()
        assert store.hears_bells

    with_store(database, body)


def test_a_bell_that_came_with_an_answer_is_heard_though_nothing_more_arrives(database: Database) -> None:
    """libpq has read it by then, so the socket is silent."""

    async def body(store: Store, rang: list[str], awake: asyncio.Event) -> None:
        async with store._session() as session:
            peeked = socket.socket(fileno=os.dup(session.fileno()))
            peeked.setblocking(True)
            session.pgconn.send_query(b"select 1")
            with database.connect() as other, peeked:
                peeked.recv(1, socket.MSG_PEEK)
                other.execute("select pg_notify('tide_outbox_notify', 'jobs/mail')")
                wait_until(lambda: b"jobs/mail" in peeked.recv(9000, socket.MSG_PEEK), LIMIT_SECONDS, "the bell")
            session.pgconn.consume_input()
            while session.pgconn.get_result() is not None:
                pass
        with store.idle(awake.set):
            await awake.wait()
        assert rang == ["jobs/mail"]

    with_store(database, body)
