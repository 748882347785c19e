"""What applications may import, with its types: a change here is a change for users, and CHANGELOG names it."""

import inspect
from collections.abc import Callable
from datetime import datetime
from typing import Any, assert_type

import psycopg
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

import relay
from relay import errors, inbox, outbox
from relay.inbox import InboxMessage

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
}


def test_the_public_names_are_these() -> None:
    assert [name for name in PUBLIC["relay"] if not hasattr(relay, name)] == []
    for module in (inbox, outbox):
        assert sorted(module.__all__) == PUBLIC[module.__name__]
        assert [name for name in module.__all__ if not hasattr(module, name)] == []


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
