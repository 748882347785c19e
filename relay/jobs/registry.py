"""The handlers of this process, by the names of their jobs.

    @job
    def send_receipt(order_id: int) -> None: ...

    @job(name="mail.receipt", queue="mail", timeout=60, key=lambda order_id: f"receipt:{order_id}")
    async def send_receipt(context: Context, order_id: int) -> None: ...

Two of one name are an error, and not the last one's: which it is would depend on the order of imports.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, overload

from relay.jobs.backoff import Backoff
from relay.jobs.context import Context
from relay.jobs.cron import Missed
from relay.jobs.errors import HandlerError
from relay.jobs.handlers import AnyJob, Job

P = ParamSpec("P")
R = TypeVar("R")

_handlers: dict[str, AnyJob] = {}


class Decorator(Protocol):
    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], R], /) -> Job[Concatenate[Context, P], P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Job[P, P, R]: ...


@overload
def job(function: Callable[Concatenate[Context, P], R], /) -> Job[Concatenate[Context, P], P, R]: ...
@overload
def job(function: Callable[P, R], /) -> Job[P, P, R]: ...
@overload
def job(
    *,
    name: str | None = None,
    queue: str = "default",
    priority: int = 0,
    max_attempts: int = 10,
    timeout: float = 30,
    backoff: Backoff | None = None,
    dead_on: tuple[type[BaseException], ...] = (),
    isolation: Literal["process"] | None = None,
    cron: str | None = None,
    time_zone: str = "UTC",
    missed: Missed = "one",
    key: Callable[..., str] | None = None,
    run_key: Callable[..., str] | str | None = None,
) -> Decorator: ...
def job(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str = "default",
    priority: int = 0,
    max_attempts: int = 10,
    timeout: float = 30,
    backoff: Backoff | None = None,
    dead_on: tuple[type[BaseException], ...] = (),
    isolation: Literal["process"] | None = None,
    cron: str | None = None,
    time_zone: str = "UTC",
    missed: Missed = "one",
    key: Callable[..., str] | None = None,
    run_key: Callable[..., str] | str | None = None,
) -> Any:
    """Makes a function, plain or a coroutine, the handler of the jobs of one name: by default its own.

    A first parameter `context: Context` is no argument of the job. `backoff` is seconds, some of them, or a function
    of the attempt; `dead_on` are exceptions after which no attempt follows; `isolation="process"` runs it where it can
    be killed. `cron` enqueues it by the clock of `time_zone`; `missed` says what becomes of times at which no scheduler
    ran: `one` job for the last, `all`, or `skip`. `key` makes the idempotency key of arguments, which it takes by their
    names; `run_key` is such a function too, or a text.
    """

    def decorate(function: Callable[..., Any]) -> AnyJob:
        return add(
            Job(
                function,
                function.__name__ if name is None else name,
                {"queue": queue, "priority": priority, "max_attempts": max_attempts, "timeout": timeout},
                backoff=backoff,
                dead_on=dead_on,
                isolation=isolation,
                cron=cron,
                time_zone=time_zone,
                missed=missed,
                key=key,
                run_key=run_key,
            )
        )

    return decorate if function is None else decorate(function)


def add(made: AnyJob) -> AnyJob:
    """Raises HandlerError if the name is another handler's. The same function may come again, as by a reload."""
    other = _handlers.get(made.name)
    if other is not None and other.place.partition(" ")[2] != made.place.partition(" ")[2]:
        raise HandlerError(f"two handlers have the name {made.name!r}: {other.place} and {made.place}; rename one")
    _handlers[made.name] = made
    return made


def handler(name: str) -> AnyJob | None:
    """The handler of the jobs of that name, if this process has it."""
    return _handlers.get(name)


def handlers() -> dict[str, AnyJob]:
    """All of them."""
    return dict(_handlers)


@contextmanager
def own_handlers() -> Iterator[None]:
    """None at first, and the former ones afterwards: for tests that declare some."""
    kept = dict(_handlers)
    _handlers.clear()
    try:
        yield
    finally:
        _handlers.clear()
        _handlers.update(kept)


def load(modules: Iterable[str]) -> dict[str, AnyJob]:
    """Imports modules, also of the working directory, and returns all handlers. Raises HandlerError."""
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    names = list(modules)
    for module in names:
        _import(module)
    if names and not _handlers:
        raise HandlerError(f"no handler of jobs is in {', '.join(names)}: write @job above a function")
    for each in _handlers.values():
        each.check()
    return handlers()


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise HandlerError(
                f"there is no module {module!r} with handlers of jobs. The working directory is {os.getcwd()}; "
                "install the application, or set PYTHONPATH"
            ) from error
        raise HandlerError(f"module {module!r} cannot be imported: {error}") from error
    except HandlerError:
        raise
    except Exception as error:
        raise HandlerError(f"module {module!r} cannot be imported: {type(error).__name__}: {error}") from error
