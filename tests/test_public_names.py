"""What applications may import, with its types: a change here is a change for users, and CHANGELOG names it."""

# What must not type-check is marked so: a mark too many is an error, too.
# mypy: warn-unused-ignores

import inspect
from collections.abc import Callable
from datetime import datetime
from typing import Any, assert_type

import psycopg
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

import relay
from relay import errors, inbox, jobs, outbox
from relay.inbox import InboxMessage
from relay.jobs import testing

PUBLIC = {
    "relay": ["__version__"],
    "relay.inbox": [
        "AsyncConnection",
        "AsyncHandler",
        "Connection",
        "Handler",
        "InboxMessage",
        "Stop",
        "run",
        "run_async",
    ],
    "relay.outbox": [
        "BadValue",
        "Disabled",
        "Message",
        "NotAllowed",
        "NotFound",
        "Refused",
        "TooLarge",
        "publish",
        "publish_async",
        "publish_many",
        "publish_many_async",
    ],
    "relay.jobs": [
        "BatchProgress",
        "Context",
        "Discard",
        "Job",
        "Retry",
        "Snooze",
        "Template",
        "around",
        "batch",
        "batch_async",
        "batch_close",
        "batch_close_async",
        "batch_create",
        "batch_create_async",
        "batch_get",
        "batch_get_async",
        "before",
        "current",
        "enqueue",
        "enqueue_async",
        "enqueue_celery",
        "enqueue_celery_async",
        "enqueue_dramatiq",
        "enqueue_dramatiq_async",
        "enqueue_http",
        "enqueue_http_async",
        "enqueue_many",
        "enqueue_many_async",
        "errors",
        "job",
        "template",
        "template_celery",
        "template_dramatiq",
        "template_http",
    ],
    "relay.jobs.testing": [
        "Ran",
        "Recorded",
        "RecordedBatch",
        "Recorder",
        "inline",
        "own_handlers",
        "recorded",
        "run_due",
        "run_due_async",
    ],
}
ERRORS_OF_JOBS = {
    "JobError": ["RelayError"],
    "BadArguments": ["JobError", "BadValue", "ValueError"],
    "BadOptions": ["JobError", "BadValue", "ValueError"],
    "UnknownQueue": ["JobError", "NotFound"],
    "QueueDisabled": ["JobError", "Disabled"],
    "IdempotencyConflict": ["JobError", "Conflict"],
    "JobTooLarge": ["JobError", "TooLarge"],
    "UnknownReference": ["JobError", "NotFound"],
    "LeaseLost": ["JobError", "Disabled"],
    "EnqueueNotAllowed": ["JobError", "NotAllowed"],
    "HandlerError": ["JobError", "ConfigError"],
}
"""What each may be caught as."""


def test_the_public_names_are_these() -> None:
    assert [name for name in PUBLIC["relay"] if not hasattr(relay, name)] == []
    for module in (inbox, outbox, jobs, testing):
        assert sorted(module.__all__) == PUBLIC[module.__name__]
        assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_the_errors_of_jobs_are_one_family() -> None:
    for name, parents in ERRORS_OF_JOBS.items():
        assert set(parents) <= {each.__name__ for each in getattr(jobs.errors, name).__mro__}
    drawn = jobs.errors.__doc__ or ""
    assert [name for name in ERRORS_OF_JOBS if f"{name} " not in drawn and f"{name}\n" not in drawn] == []


def test_the_parameters_of_run_are_these() -> None:
    for function in (inbox.run, inbox.run_async):
        parameters = inspect.signature(function).parameters
        assert [name for name, each in parameters.items() if each.kind is each.POSITIONAL_OR_KEYWORD] == [
            "database",
            "inbox",
            "handler",
        ]
        assert [name for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY] == [
            "transaction",
            "worker",
            "batch_size",
            "visibility_seconds",
            "poll_seconds",
            "stop",
            "until_empty",
        ]


def test_the_parameters_of_publish_are_these() -> None:
    for function in (outbox.publish, outbox.publish_async):
        assert list(inspect.signature(function).parameters) == ["connection", "outbox", "payload", "key", "headers"]
    for many in (outbox.publish_many, outbox.publish_many_async):
        assert list(inspect.signature(many).parameters) == ["connection", "outbox", "messages"]


async def publishing(connection: psycopg.Connection[Any], other: psycopg.AsyncConnection[Any]) -> None:
    """Never called, as `uses_of_an_application`."""
    messages = [outbox.Message({"order": 42}, key="customer-7"), outbox.Message([1], headers={"type": "t"})]
    assert_type(outbox.publish(connection, "orders", {"order": 42}, key="k", headers={"type": "t"}), int)
    assert_type(outbox.publish_many(connection, "orders", messages), list[int])
    assert_type(await outbox.publish_async(other, "orders", messages[0].payload), int)
    assert_type(await outbox.publish_many_async(other, "orders", messages), list[int])
    refused: errors.RelayError = outbox.NotFound("no such outbox")
    assert_type(outbox.Refused("no").sqlstate, str | None)
    assert_type((messages[0].key, refused), tuple[str | None, errors.RelayError])


def uses_of_an_application(message: InboxMessage, connection: psycopg.Connection[Any]) -> None:
    """Never called: mypy reads it, with the same settings as the code."""
    assert_type(relay.__version__, str)
    assert_type(inbox.run("postgresql://...", "orders", handle), int)
    assert_type(inbox.run(connection, "orders", handle, until_empty=True), int)
    assert_type(message.event_id, str)
    assert_type(message.inbox_seq, int)
    assert_type(message.event_type, str | None)
    assert_type(message.aggregate_id, str | None)
    assert_type(message.payload, Any)
    assert_type(message.headers, dict[str, Any])
    assert_type(message.received_at, datetime)
    assert_type(message.retry_count, int)
    handler: inbox.Handler = handle
    assert_type(handler, Callable[[psycopg.Connection[Any], InboxMessage], object])


async def handling(engine: sqlalchemy.Engine, async_engine: AsyncEngine) -> None:
    """Never called: the connection of a handler is what its transaction gives."""
    assert_type(inbox.run("postgresql://...", "orders", in_session, transaction=sessionmaker(engine).begin), int)
    transaction = async_sessionmaker(async_engine).begin
    assert_type(await inbox.run_async("postgresql://...", "orders", in_async_session, transaction=transaction), int)
    assert_type(await inbox.run_async("postgresql://...", "orders", in_coroutine), int)
    inbox.run("postgresql://...", "orders", in_session)  # type: ignore[arg-type]


def in_session(session: Session, message: InboxMessage) -> None: ...


async def in_async_session(session: AsyncSession, message: InboxMessage) -> None: ...


async def in_coroutine(connection: inbox.AsyncConnection, message: InboxMessage) -> None: ...


def handle(connection: inbox.Connection, message: InboxMessage) -> None:
    connection.execute("update orders set paid = true where id = %s", [message.payload["order"]])


@jobs.job
def plain(order_id: int, note: str = "") -> int:
    return order_id


@jobs.job(name="mail.receipt", queue="mail", max_attempts=5, timeout=60, key=lambda order_id: f"order:{order_id}")
async def coroutine(context: jobs.Context, order_id: int) -> str:
    assert_type(jobs.current(), jobs.Context | None)
    return context.id


async def uses_of_jobs(connection: psycopg.Connection[Any]) -> None:
    """Never called: mypy reads it."""
    assert_type(plain(1, note="x"), int)
    assert_type(plain.enqueue(connection, 1, note="x"), str)
    assert_type(plain.enqueue_many(connection, [{"order_id": 1}]), list[str])
    assert_type(await coroutine(jobs.Context(), 1), str)
    assert_type(await coroutine.enqueue_async(connection, order_id=1), str)
    assert_type(coroutine.with_options(delay=60, queue="slow").enqueue(connection, 1), str)
    assert_type(jobs.enqueue(connection, "mail", "send", {"order_id": 1}, priority=3), str)
    assert_type(jobs.enqueue_http(connection, "hooks", "https://shop.example", json=[1], delay=3), str)
    assert_type(testing.run_due(connection), list[testing.Ran])
    then = [coroutine.template(order_id=2), jobs.template("mail", "x", {"a": 1}, delay=5)]
    assert_type(plain.template(1, note="x"), jobs.Template)
    assert_type(jobs.template_http("hooks", "https://shop.example", json=[1]), jobs.Template)
    assert_type(plain.with_options(then=then, after=["id"], run_if="ended").enqueue(connection, 1), str)
    with jobs.batch(connection, on_success=then[0], on_complete=then) as number:
        assert_type(jobs.enqueue(connection, "mail", "send", batch=number, then=then[0]), str)
    async with jobs.batch_async(connection) as number:
        assert_type(number, int)
    assert_type(await jobs.batch_create_async(connection, on_success=then), int)
    coroutine.template("x")  # type: ignore[arg-type]
    plain.template(order="x")  # type: ignore[call-arg]
    plain.with_options(then=plain)  # type: ignore[arg-type]
    plain.enqueue(connection)  # type: ignore[call-arg]
    plain.enqueue(connection, "x")  # type: ignore[arg-type]
    coroutine.enqueue(connection, jobs.Context(), 1)  # type: ignore[call-arg, arg-type]
    coroutine.with_options(dellay=60)  # type: ignore[call-arg]
    jobs.enqueue(connection, "mail", "send", {}, priority="high")  # type: ignore[arg-type]
