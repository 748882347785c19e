"""Batches: jobs whose end, all together, enqueues others.

    with jobs.batch(connection, on_success=publish.template(), on_complete=report.template("a.csv")) as number:
        parse.with_options(batch=number).enqueue_many(connection, [{"part": 1}, {"part": 2}])

When the batch is closed and all of its jobs have ended, `on_success` is enqueued if all have succeeded, and
`on_complete` in any case, once. A batch is a number, which an argument of a job can hold: jobs may enqueue into their
own batch until it is closed. As everywhere in `relay.jobs`, nothing is committed or rolled back.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from relay.database.callers import Arguments, call, call_async
from relay.jobs.errors import BadOptions, job_errors
from relay.jobs.models import BatchProgress
from relay.jobs.sending import substitutes
from relay.jobs.templates import Templates, as_tuple, json_array


@contextmanager
def batch(
    connection: Any, *, on_success: Templates | None = None, on_complete: Templates | None = None
) -> Iterator[int]:
    """Makes a batch, and closes it at the end of the block; after an exception it stays open, and is yours to close."""
    number = batch_create(connection, on_success=on_success, on_complete=on_complete)
    yield number
    batch_close(connection, number)


@asynccontextmanager
async def batch_async(
    connection: Any, *, on_success: Templates | None = None, on_complete: Templates | None = None
) -> AsyncIterator[int]:
    number = await batch_create_async(connection, on_success=on_success, on_complete=on_complete)
    yield number
    await batch_close_async(connection, number)


def batch_create(connection: Any, *, on_success: Templates | None = None, on_complete: Templates | None = None) -> int:
    """A batch that is filled in several transactions: close it with `batch_close`. Returns its number."""
    texts = _texts(on_success, on_complete)
    if substitutes:
        return substitutes[-1].batch_create(*texts)
    with job_errors():
        [(number,)] = call(connection, "job_batch_create", _made(*texts))
    return int(number)


async def batch_create_async(
    connection: Any, *, on_success: Templates | None = None, on_complete: Templates | None = None
) -> int:
    texts = _texts(on_success, on_complete)
    if substitutes:
        return substitutes[-1].batch_create(*texts)
    with job_errors():
        [(number,)] = await call_async(connection, "job_batch_create", _made(*texts))
    return int(number)


def batch_close(connection: Any, number: int) -> None:
    """No more jobs belong to it: it ends when those that do have ended. Commit soon, for they wait for that to end.

    It waits for open transactions that enqueue into it, up to five seconds. Closing it again does nothing.
    """
    if substitutes:
        substitutes[-1].batch_close(number)
    else:
        with job_errors():
            call(connection, "job_batch_close", _numbered(number))


async def batch_close_async(connection: Any, number: int) -> None:
    if substitutes:
        await substitutes[-1].batch_close_async(number)
    else:
        with job_errors():
            await call_async(connection, "job_batch_close", _numbered(number))


def batch_get(connection: Any, number: int) -> BatchProgress | None:
    """How far it is; None if there is no such batch, or no longer."""
    if substitutes:
        return substitutes[-1].batch_get(number)
    with job_errors():
        return _progress(call(connection, "job_batch_get", _numbered(number)))


async def batch_get_async(connection: Any, number: int) -> BatchProgress | None:
    if substitutes:
        return substitutes[-1].batch_get(number)
    with job_errors():
        return _progress(await call_async(connection, "job_batch_get", _numbered(number)))


def _texts(on_success: Templates | None, on_complete: Templates | None) -> tuple[str | None, str | None]:
    return _text("on_success", on_success), _text("on_complete", on_complete)


def _text(what: str, given: Templates | None) -> str | None:
    try:
        return None if given is None else json_array(as_tuple(given))
    except ValueError as error:
        raise BadOptions(f"{what}: {error}") from None


def _made(on_success: str | None, on_complete: str | None) -> Arguments:
    return {"on_success": ("jsonb", on_success), "on_complete": ("jsonb", on_complete)}


def _numbered(number: int) -> Arguments:
    return {"batch": ("bigint", number)}


def _progress(rows: Sequence[tuple[Any, ...]]) -> BatchProgress | None:
    return BatchProgress(*rows[0]) if rows else None
