"""Enqueuing on each kind of connection: a job is part of the application's transaction, and of nothing else."""

import asyncio
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from relay import jobs
from relay.jobs import job
from relay.jobs.errors import (
    BadArguments,
    BadOptions,
    EnqueueNotAllowed,
    IdempotencyConflict,
    JobError,
    JobTooLarge,
    QueueDisabled,
    UnknownQueue,
)
from relay.jobs.handlers import AnyJob
from relay.jobs.ids import job_uuid
from tests.outbox.rows import ROWS, Caller
from tests.services.postgres import Database

_numbers = itertools.count()


@pytest.fixture(scope="module")
def shared(shared: Database) -> Database:
    """With a queue: each test has jobs of a name of its own."""
    with shared.connect() as connection:
        connection.execute("create table public.effect (name text)")
        connection.execute("select tide.job_queue_create('mail', max_payload_bytes => 4096)")
    return shared


@pytest.fixture(params=ROWS)
def caller(request: pytest.FixtureRequest, shared: Database) -> Iterator[Caller]:
    with ROWS[request.param](shared.url) as opened:
        yield opened


@pytest.fixture
def send() -> AnyJob:
    @job(name=f"send{next(_numbers)}", queue="mail", priority=2)
    def send(order_id: int, note: str = "") -> None: ...

    return send


def enqueue(caller: Caller, send: AnyJob, *args: Any, **kwargs: Any) -> str:
    if caller.run:
        found: str = caller.run(send.enqueue_async(caller.connection, *args, **kwargs))
        return found
    return send.enqueue(caller.connection, *args, **kwargs)


def enqueue_many(caller: Caller, send: AnyJob, orders: list[int]) -> list[str]:
    arguments = [{"order_id": order} for order in orders]
    if caller.run:
        found: list[str] = caller.run(send.enqueue_many_async(caller.connection, arguments))
        return found
    return send.enqueue_many(caller.connection, arguments)


def assert_aborted(caller: Caller) -> None:
    with pytest.raises(Exception, match=r"current transaction is aborted|pipeline aborted"):
        caller.execute("select 1")


def enqueued(look: Any, send: AnyJob) -> list[tuple[str, int]]:
    """The UUIDs and the orders of what others see."""
    found = look.execute(
        "select tide.job_uuid(outbox_id, id), payload from tide.job where name = %s order by id", [send.name]
    )
    return [(str(uuid), payload["order_id"]) for uuid, payload in found]


def test_a_job_is_part_of_the_transaction_of_the_caller(caller: Caller, look: Any, send: AnyJob) -> None:
    first = enqueue(caller, send, 1, note="it's %s $1 {é}")
    assert enqueued(look, send) == []
    undo = caller.savepoint()
    enqueue(caller, send, 2)
    undo()
    keyed = send.with_options(idempotency_key=send.name)
    kept = enqueue(caller, keyed, 3)
    assert enqueue(caller, keyed, 3) == kept, "a second job of one key is the first"
    many = enqueue_many(caller, send, [4, 5])
    caller.commit()
    assert enqueued(look, send) == [(first, 1), (kept, 3), (many[0], 4), (many[1], 5)]
    enqueue(caller, send, 6)
    caller.rollback()
    assert enqueue_many(caller, send, []) == []
    caller.commit()
    assert len(enqueued(look, send)) == 4


def test_an_error_leaves_the_transaction_as_any_statement_does(caller: Caller, look: Any, send: AnyJob) -> None:
    effect = f"insert into public.effect values ('{send.name}')"
    effects = f"select count(*) from public.effect where name = '{send.name}'"
    keyed = send.with_options(idempotency_key=send.name)
    caller.execute(effect)
    first = enqueue(caller, keyed, 1)
    with pytest.raises(BadArguments):
        enqueue(caller, send, "one")
    caller.execute(effect)  # nothing was sent: the transaction goes on
    undo = caller.savepoint()
    with pytest.raises(UnknownQueue, match=r'"nowhere" does not exist\. Create it: .*job_queue_create') as refused:
        enqueue(caller, send.with_options(queue="nowhere"), 1)
    assert refused.value.__cause__ is not None
    assert isinstance(refused.value, JobError)
    assert_aborted(caller)
    undo()
    undo = caller.savepoint()
    with pytest.raises(IdempotencyConflict, match=f"key \"{send.name}\" .*{first}.*on_conflict => 'ignore'"):
        enqueue(caller, keyed, 2)
    assert_aborted(caller)
    undo()
    assert enqueue(caller, keyed.with_options(on_conflict="ignore"), 2) == first
    caller.commit()
    assert look.execute(effects).fetchone() == (2,)
    caller.execute(effect)
    with pytest.raises(UnknownQueue):
        enqueue_many(caller, send.with_options(queue="nowhere"), [2, 3])
    caller.rollback()
    assert look.execute(effects).fetchone() == (2,)
    assert enqueued(look, send) == [(first, 1)]


def test_every_option_reaches_its_column(shared: Database, look: Any, send: AnyJob) -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    options: Any = {
        "at": at,
        "priority": -3,
        "max_attempts": 4,
        "timeout": 1.5,
        "run_key": "tenant",
        "idempotency_key": f"i{send.name}",
        "dedupe_key": f"d{send.name}",
        "dedupe": "unfinished",
        "trace_id": "trace",
        "headers": {"a": ["é"]},
        "metadata": {"b": None},
        "backoff": [1, 2],
    }
    row = (-3, 4, 2, at, "tenant", f"i{send.name}", f"d{send.name}", "trace", {"a": ["é"]}, {"b": None})
    columns = (
        "priority, max_attempts, timeout_seconds, available_at, run_key, idempotency_key, dedupe_key, trace_id,"
        " headers, metadata, options"
    )
    with shared.connect() as connection:
        uuid = send.with_options(**options).enqueue(connection, 1)
        del options["idempotency_key"]
        assert send.with_options(**options).enqueue(connection, 2) == uuid, "the dedupe key is in use"
        jobs.enqueue(connection, "mail", f"{send.name}x", {"a": 1}, **options | {"dedupe": None})
    [found] = look.execute(f"select {columns} from tide.job where name = %s", [send.name]).fetchall()
    assert found == (*row, {"backoff": [1, 2]})
    [found] = look.execute(f"select {columns} from tide.job where name = %s", [f"{send.name}x"]).fetchall()
    assert found == (*row[:5], None, *row[6:], {"backoff": [1, 2]})


def test_jobs_of_other_kinds_are_what_their_workers_read(shared: Database, look: Any, send: AnyJob) -> None:
    name = send.name

    async def enqueue_all() -> list[str]:
        async with await psycopg.AsyncConnection.connect(shared.url) as connection:
            return [
                await jobs.enqueue_http_async(
                    connection, "mail", "https://shop.example/paid", name=name, json={"id": 1}
                ),
                await jobs.enqueue_http_async(connection, "mail", "https://shop.example/", name=name, method="GET"),
                await jobs.enqueue_dramatiq_async(connection, "mail", name, [1], {"deep": True}),
                await jobs.enqueue_celery_async(connection, "mail", name),
                *await jobs.enqueue_many_async(connection, "mail", name, [{"a": 1}, None]),
            ]

    uuids = asyncio.run(enqueue_all())
    found = look.execute(
        "select outbox_id, id, kind::text, payload from tide.job where name = %s order by id", [name]
    ).fetchall()
    assert [job_uuid(outbox_id, number) for outbox_id, number, *_ in found] == uuids
    assert [row[2:] for row in found] == [
        ("h", {"url": "https://shop.example/paid", "method": "POST", "json": {"id": 1}}),
        ("h", {"url": "https://shop.example/", "method": "GET"}),
        ("d", {"args": [1], "kwargs": {"deep": True}}),
        ("c", {"args": [], "kwargs": {}}),
        ("p", {"a": 1}),
        ("p", {}),
    ]


def test_a_key_of_arguments_is_that_of_each_of_many(shared: Database, look: Any) -> None:
    @job(queue="mail", key=lambda order: f"order:{order}", run_key=lambda tenant: tenant)
    def ship(order: int, tenant: str = "t1") -> None: ...

    with shared.connect() as connection:
        first = ship.enqueue(connection, 2)
        uuids = ship.enqueue_many(connection, [{"order": order, "tenant": f"t{order}"} for order in (1, 2, 3)][::2])
        again = ship.enqueue_many(connection, [{"order": 2}, {"order": 1, "tenant": "t1"}])
        with pytest.raises(IdempotencyConflict, match=first):
            ship.enqueue_many(connection, [{"order": 7}, {"order": 2, "tenant": "t9"}])
    assert again == [first, uuids[0]]
    found = look.execute("select idempotency_key, run_key from tide.job where name = 'ship' order by idempotency_key")
    assert found.fetchall() == [("order:1", "t1"), ("order:2", "t1"), ("order:3", "t3")]


def test_a_job_that_is_enqueued_by_a_job_has_its_trace_id(shared: Database, look: Any, send: AnyJob) -> None:
    @job
    def outer(context: jobs.Context) -> None:
        with shared.connect() as connection:
            send.enqueue(connection, 1)

    outer.run("{}", jobs.Context(trace_id="of the first"))
    assert look.execute("select trace_id from tide.job where name = %s", [send.name]).fetchone() == ("of the first",)


def test_each_refusal_is_an_error_of_jobs_that_says_what_to_do(shared: Database, look: Any, send: AnyJob) -> None:
    look.execute("select tide.job_queue_create('closed'), tide.outbox_disable('jobs/closed')")
    with shared.connect() as connection, shared.admin() as admin:
        for enqueue_it, kind, problem in [
            (
                lambda: send.enqueue(connection, 1, note="x" * 9000),
                JobTooLarge,
                r"queue \"mail\" has \d+ bytes, its limit is 4096",
            ),
            (
                lambda: send.with_options(queue="closed").enqueue(connection, 1),
                QueueDisabled,
                "takes no jobs.*outbox_enable",
            ),
            (lambda: send.with_options(headers={"a": "\0"}).enqueue(connection, 1), BadOptions, r"headers\.a: .*NUL"),
            (lambda: jobs.enqueue(connection, "mail", "x" * 201), BadOptions, "1 to 200 characters"),
            (
                lambda: send.with_options(trace_id="x" * 513).enqueue(connection, 1),
                BadOptions,
                "at most 512 characters",
            ),
            (
                lambda: send.with_options(trace_id="x" * 513).enqueue_many(connection, [{"order_id": 1}]),
                BadOptions,
                "at most 512 characters",
            ),
        ]:
            with pytest.raises(kind, match=problem):
                enqueue_it()
        admin.execute("create role stranger login password 'x'")
        try:
            with psycopg.connect(shared.url, user="stranger", password="x") as stranger:
                with pytest.raises(EnqueueNotAllowed, match=r"permission denied.*grant_job_publisher"):
                    send.enqueue(stranger, 1)
                stranger.rollback()
                admin.execute("select tide.grant_job_publisher('stranger')")
                assert send.enqueue(stranger, 1)
        finally:
            admin.execute("drop owned by stranger; drop role stranger")
    with pytest.raises(TypeError, match=r"Known are: psycopg 3 "):
        send.enqueue(object(), 1)
    assert [order for _, order in enqueued(look, send)] == [1], "of the stranger, at last"
