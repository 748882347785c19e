"""What surrounds the handlers of a process: traces, log fields, scopes of dependency injection.

    @before
    def bind_log_fields(context: Context) -> None:
        structlog.contextvars.bind_contextvars(job=context.id)

    @around
    def session_scope(context: Context) -> Iterator[None]:
        with sessions.scope():
            yield

They run in the order in which they were declared, in the handler's own thread or task. Coroutines and asynchronous
generators surround only handlers that are coroutines: a plain function has no loop. An exception in one is an
exception of the handler.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any, NamedTuple, TypeVar

from relay.jobs.context import Context
from relay.jobs.errors import HandlerError

B = TypeVar("B", bound=Callable[[Context], None] | Callable[[Context], Awaitable[None]])
A = TypeVar("A", bound=Callable[[Context], Iterator[None]] | Callable[[Context], AsyncIterator[None]])


class _Scope(NamedTuple):
    is_async: bool
    enter: Callable[[Context], Any]
    """A context manager for one run."""


_scopes: list[_Scope] = []


def before(function: B) -> B:
    """Calls the function before each handler."""
    if inspect.iscoroutinefunction(function):

        @asynccontextmanager
        async def enter_async(context: Context) -> AsyncIterator[None]:
            await function(context)
            yield

        _scopes.append(_Scope(True, enter_async))
    else:

        @contextmanager
        def enter(context: Context) -> Iterator[None]:
            function(context)
            yield

        _scopes.append(_Scope(False, enter))
    return function


def around(function: A) -> A:
    """Runs each handler where the generator function yields."""
    if inspect.isasyncgenfunction(function):
        _scopes.append(_Scope(True, asynccontextmanager(function)))
    elif inspect.isgeneratorfunction(function):
        _scopes.append(_Scope(False, contextmanager(function)))
    else:
        raise HandlerError(f"@around needs a generator function with one `yield`, and {function!r} is not one")
    return function


def is_any() -> bool:
    """Whether anything was declared: entering nothing is dear, too."""
    return bool(_scopes)


@contextmanager
def surround(context: Context) -> Iterator[None]:
    """The run of a plain function."""
    with ExitStack() as stack:
        for scope in _scopes:
            if not scope.is_async:
                stack.enter_context(scope.enter(context))
        yield


@asynccontextmanager
async def surround_async(context: Context) -> AsyncIterator[None]:
    """The run of a coroutine."""
    async with AsyncExitStack() as stack:
        for scope in _scopes:
            if scope.is_async:
                await stack.enter_async_context(scope.enter(context))
            else:
                stack.enter_context(scope.enter(context))
        yield
