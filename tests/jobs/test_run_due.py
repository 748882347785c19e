"""Jobs that run in the transaction of a test."""

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from relay import jobs
from relay.jobs import Context, Discard, Retry, Snooze, job
from relay.jobs.errors import HandlerError, UnknownQueue
from relay.jobs.testing import run_due, run_due_async
from tests.services.postgres import Database


@pytest.fixture
def db(database: Database) -> Iterator["psycopg.Connection[Any]"]:
    """Not in autocommit, as in an application's test; the queues are there."""
    with database.connect() as owner:
        owner.execute("select tide.job_queue_create('mail'), tide.job_queue_create('default')")
    with database.connect(autocommit=False) as connection:
        yield connection
        connection.rollback()


def left(database: Database) -> list[Any]:
    """What others see."""
    with database.connect() as other:
        tables = ("job", "job_attempt", "job_wait", "job_dead", "job_lease", "job_worker")
        return [other.execute(f"select count(*) from tide.{table}").fetchone()[0] for table in tables]


def test_what_is_due_runs_in_the_test_s_transaction_and_rolls_back_with_it(db, database):
    seen: list[Any] = []

    @job(queue="mail")
    def send(context: Context, order_id: int) -> dict[str, int]:
        seen.append((context.id, context.attempt, context.trace_id))
        if order_id == 1:
            copy.enqueue(db, 2)
        return {"order": order_id}

    @job
    async def copy(order_id: int) -> None:
        await asyncio.sleep(0)
        seen.append(order_id)

    first = send.with_options(trace_id="t1").enqueue(db, 1)
    later = send.with_options(delay=3600).enqueue(db, 9)
    jobs.enqueue_http(db, "mail", "https://shop.example/paid")
    ran = run_due(db)
    assert [(each.name, each.payload, each.outcome, each.result) for each in ran] == [
        ("send", {"order_id": 1}, "succeeded", {"order": 1}),
        ("copy", {"order_id": 2}, "succeeded", None),
    ]
    assert seen == [(first, 1, "t1"), 2]
    assert ran[0].id == first != later
    [state] = db.execute("select tide.job_state('mail', (tide.job_of_uuid(%s)).id)", [first]).fetchone()
    assert state == "succeeded"
    assert run_due(db) == []
    assert left(database) == [0, 0, 0, 0, 0, 0]
    db.rollback()
    assert run_due(db) == []


def test_outcomes_are_those_of_a_worker(db, database):
    outcomes = {1: Retry(0), 2: Snooze(3600), 3: Discard("no such order"), 4: ValueError("x")}
    attempts: list[tuple[int, int]] = []

    @job(max_attempts=2, backoff=0)
    def work(context: Context, number: int) -> None:
        attempts.append((number, context.attempt))
        if number in outcomes:
            raise outcomes[number]

    work.enqueue_many(db, [{"number": number} for number in range(5)])
    ran = run_due(db, raise_errors=False)
    assert sorted((each.payload["number"], each.attempt, each.outcome) for each in ran) == [
        (0, 1, "succeeded"),
        (1, 1, "retried"),
        (1, 2, "dead"),
        (2, 1, "snoozed"),
        (3, 1, "dead"),
        (4, 1, "retried"),
        (4, 2, "dead"),
    ]
    assert sorted(attempts) == [(0, 1), (1, 1), (1, 2), (2, 1), (3, 1), (4, 1), (4, 2)]
    errors = db.execute("select error from tide.job_dead order by id").fetchall()
    assert errors == [("the handler asked for a retry",), ("no such order",), ("ValueError: x",)]


def test_an_exception_of_a_handler_is_raised(db):
    @job
    def fails() -> None:
        raise KeyError("x")

    fails.enqueue(db)
    with pytest.raises(KeyError):
        run_due(db)


def test_a_job_that_completes_itself_is_one_commit_with_what_it_wrote(db, database):
    @job
    def work(context: Context) -> None:
        db.execute("create table effect as select %s as id", [context.id])
        context.complete(db, {"sum": 3})
        raise RuntimeError("after the end of the job")

    number = work.enqueue(db)
    run_due(db, raise_errors=False)
    db.commit()
    with database.connect() as other:
        assert other.execute("select id from effect").fetchone() == (number,)
        [attempt] = other.execute("select attempt, outcome, result from tide.job_attempt").fetchall()
        assert attempt == (1, "s", {"sum": 3})
    assert left(database)[2:] == [0, 0, 0, 0]

    lost = Context(id=number, name="work", lease_id=1, number=1)
    with pytest.raises(jobs.errors.LeaseLost, match=r"job 'work' .*lease has ended"):
        lost.complete(db)


def test_run_due_of_an_asynchronous_connection(database):
    @job
    async def work(context: Context, number: int) -> int:
        if number == 3:
            await context.complete_async(context.metadata and connections[0], 3)
        return number

    connections: list[Any] = []

    async def application() -> list[Any]:
        async with await psycopg.AsyncConnection.connect(database.url) as connection:
            connections.append(connection)
            await connection.execute("select tide.job_queue_create('default')")
            await work.with_options(metadata={"completes": True}).enqueue_many_async(
                connection, [{"number": number} for number in (3, 4)]
            )
            ran = await run_due_async(connection)
            await connection.rollback()
            return ran

    assert [(each.outcome, each.result) for each in asyncio.run(application())] == [("succeeded", 3), ("succeeded", 4)]


def test_what_cannot_run_says_why(db):
    @job
    def again() -> None:
        again.enqueue(db)

    with pytest.raises(UnknownQueue, match="'nowhere' does not exist"):
        run_due(db, "nowhere")
    jobs.enqueue(db, "mail", "unknown")
    with pytest.raises(HandlerError, match="job 'unknown' of queue 'mail'"):
        run_due(db, "mail")
    again.enqueue(db)
    with pytest.raises(HandlerError, match="5 jobs ran, and there is more"):
        run_due(db, most=5)
