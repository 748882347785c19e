"""Coroutines as handlers: the loop of `consumer` on a thread of its own, and each message handled on the event loop.

So the loop is written once, and a handler that takes long holds up neither the event loop nor another run.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import psycopg

from relay.database.connection import VALUES, values
from relay.inbox.consumer import Work, known_url, new_holder
from relay.inbox.message import AsyncConnection, AsyncHandler, Connection, InboxMessage, Stop
from relay.inbox.transactions import Abandoned, Confirm, handle_async

T = TypeVar("T")
Begin = Callable[[], AbstractAsyncContextManager[Any]]

_LOOK_SECONDS = 1.0
"""How often the thread looks whether the event loop, which should answer it, has ended."""


@overload
async def run_async(
    database: str,
    inbox: str,
    handler: AsyncHandler,
    *,
    transaction: None = None,
    worker: str | None = None,
    batch_size: int = 10,
    visibility_seconds: int = 30,
    poll_seconds: float = 1.0,
    stop: Stop | None = None,
    until_empty: bool = False,
) -> int: ...


@overload
async def run_async(
    database: str,
    inbox: str,
    handler: Callable[[T, InboxMessage], Awaitable[object]],
    *,
    transaction: Callable[[], AbstractAsyncContextManager[T]],
    worker: str | None = None,
    batch_size: int = 10,
    visibility_seconds: int = 30,
    poll_seconds: float = 1.0,
    stop: Stop | None = None,
    until_empty: bool = False,
) -> int: ...


async def run_async(
    database: str,
    inbox: str,
    handler: Callable[[Any, InboxMessage], Awaitable[object]],
    *,
    transaction: Begin | None = None,
    worker: str | None = None,
    batch_size: int = 10,
    visibility_seconds: int = 30,
    poll_seconds: float = 1.0,
    stop: Stop | None = None,
    until_empty: bool = False,
) -> int:
    """`run` for a coroutine, on the event loop that awaits it: one message at a time, so gather as many as you like.

    The handler has an asynchronous connection of psycopg, or what `transaction` gives: `async_sessionmaker.begin` or
    `AsyncEngine.begin` of SQLAlchemy, or an asynchronous context manager of your own. When the task is cancelled, so is
    the handler: what it did is rolled back, and its message is given back without counting a failure.
    """
    database = known_url(database)
    ended = threading.Event()
    own = _OwnConnection(database)
    holder = new_holder(inbox, worker)
    confirm = Confirm(holder)
    on_loop = _OnLoop(asyncio.get_running_loop(), ended)

    def handle(connection: Connection, message: InboxMessage) -> bool:
        done = on_loop.result(handle_async(transaction or own.begin, handler, holder, message))
        if done:
            confirm(connection, message)
        return done

    stops = _AnyOf(ended, stop)
    work = Work(holder, handle, batch_size, visibility_seconds, poll_seconds, stops, until_empty)
    thread = concurrent.futures.ThreadPoolExecutor(1, f"inbox {inbox}")
    running = asyncio.get_running_loop().run_in_executor(thread, work.run, database)
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        ended.set()
        on_loop.cancel()
        await asyncio.wait([running])
        raise
    finally:
        ended.set()
        thread.shutdown(wait=False)
        await own.close()
    return work.handled


@dataclass(slots=True)
class _OwnConnection:
    """One for the handlers, made when it is needed, and made again when it is lost."""

    url: str
    connection: AsyncConnection | None = None

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        if self.connection is None or self.connection.closed:
            name = "tide-relay inbox handler"
            options: dict[str, Any] = {"autocommit": True, "application_name": name, **VALUES}
            self.connection = await psycopg.AsyncConnection.connect(self.url, **options)
            await self.connection.execute(*values())
        async with self.connection.transaction():
            yield self.connection

    async def close(self) -> None:
        if self.connection is not None:
            await self.connection.close()


@dataclass(slots=True)
class _OnLoop:
    """Coroutines that a thread hands to the event loop, one at a time."""

    loop: asyncio.AbstractEventLoop
    ended: threading.Event
    task: "asyncio.Task[bool] | None" = None
    """The present one."""

    def result(self, coroutine: Coroutine[Any, Any, bool]) -> bool:
        """Called by the thread. Raises what the coroutine raises, or Abandoned."""
        future = asyncio.run_coroutine_threadsafe(self._run(coroutine), self.loop)
        while not concurrent.futures.wait([future], _LOOK_SECONDS).done:
            if self.loop.is_closed():
                raise Abandoned
        if future.cancelled() and self.ended.is_set():
            raise Abandoned
        return future.result()

    async def _run(self, coroutine: Coroutine[Any, Any, bool]) -> bool:
        if self.ended.is_set():
            coroutine.close()
            raise Abandoned
        self.task = asyncio.current_task()
        try:
            return await coroutine
        finally:
            self.task = None

    def cancel(self) -> None:
        """Called on the event loop, once `ended` is set."""
        if self.task is not None:
            self.task.cancel()


@dataclass(frozen=True, slots=True)
class _AnyOf:
    ended: threading.Event
    stop: Stop | None

    def is_set(self) -> bool:
        return self.ended.is_set() or (self.stop is not None and self.stop.is_set())
