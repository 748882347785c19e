"""What a kind of connection is for the tests: the calls that its own library has for transactions."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

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
