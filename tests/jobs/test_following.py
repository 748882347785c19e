"""What follows jobs, from Python: chains, batches and dependencies, on each kind of connection."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from relay import jobs
from relay.jobs import job
from relay.jobs.errors import UnknownQueue, UnknownReference
from relay.jobs.handlers import AnyJob
from relay.jobs.testing import own_handlers, run_due, run_due_async
from tests.outbox.rows import ROWS, Caller
from tests.services.postgres import Database

_numbers = itertools.count()
CALLERS = [
    "psycopg",
    "psycopg, async",
    "psycopg2",
    "SQLAlchemy Session, psycopg",
    "SQLAlchemy AsyncSession, asyncpg",
    "SQLAlchemy Connection, psycopg2",
    "SQLModel Session",
    "asyncpg",
    "Django connection",
]
"""One for each library: the others differ in how a statement is sent, which enqueuing tries for all of them."""


@pytest.fixture(params=CALLERS)
def caller(request: pytest.FixtureRequest, shared: Database) -> Iterator[Caller]:
    with ROWS[request.param](shared.url) as opened:
        yield opened


@dataclass
class App:
    """The handlers of a queue, and what was run."""

    queue: str
    look: Any
    load: AnyJob = field(init=False)
    survey: AnyJob = field(init=False)
    report: AnyJob = field(init=False)
    bad: AnyJob = field(init=False)

    def __post_init__(self) -> None:
        @job(queue=self.queue)
        def load(part: int) -> int:
            return part

        @job(queue=self.queue, max_attempts=1, timeout=7)
        def survey(order: Decimal, at: datetime | None = None) -> None: ...

        @job(queue=self.queue)
        def report() -> None: ...

        @job(queue=self.queue, max_attempts=1)
        def bad() -> None:
            raise ValueError("x")

        self.load, self.survey, self.report, self.bad = load, survey, report, bad

    def run(self) -> list[tuple[str, Any]]:
        """What was due, and what followed it, in its order: the names and the payloads."""
        return [(each.name, each.payload) for each in run_due(self.look, self.queue, raise_errors=False)]

    def written(self) -> int:
        [(jobs,)] = self.look.execute("select count(*) from tide.job_list(%s)", [self.queue])
        return int(jobs)


@pytest.fixture
def app(look: Any) -> Iterator[App]:
    queue = f"q{next(_numbers)}"
    look.execute("select tide.job_queue_create(%s)", [queue])
    with own_handlers():
        yield App(queue, look)


def call(caller: Caller, blocking: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The function, or its twin where the connection is asynchronous."""
    if not caller.run:
        return blocking(caller.connection, *args, **kwargs)
    owner = getattr(blocking, "__self__", None) or jobs
    return caller.run(getattr(owner, f"{blocking.__name__}_async")(caller.connection, *args, **kwargs))


# On each kind of connection ------------------------------------------------------------------------------------------


def test_a_chain_goes_on_when_its_job_has_succeeded(caller: Caller, app: App) -> None:
    at = datetime(2030, 1, 2, tzinfo=UTC)
    then = [app.survey.template("12.50", at=at), app.load.with_options(then=app.report.template()).template(part=2)]
    call(caller, app.load.with_options(then=then, backoff=3).enqueue, 1)
    call(caller, app.bad.with_options(then=app.report.template()).enqueue)
    assert app.written() == 0
    caller.commit()
    assert app.run() == [
        ("load", {"part": 1}),
        ("bad", {}),
        ("survey", {"order": "12.50", "at": "2030-01-02T00:00:00Z"}),
        ("load", {"part": 2}),
        ("report", {}),
    ]
    call(caller, app.load.with_options(then=then).enqueue, 3)
    caller.rollback()
    assert app.run() == []


def test_a_batch_enqueues_its_callbacks_once(caller: Caller, app: App) -> None:
    number = call(caller, jobs.batch_create, on_success=app.survey.template(1), on_complete=[app.report.template()])
    call(caller, app.load.with_options(batch=number).enqueue_many, [{"part": 1}, {"part": 2}])
    caller.commit()
    assert [name for name, _ in app.run()] == ["load", "load"], "it is open"
    call(caller, app.load.with_options(batch=number).enqueue, 3)
    is_open = call(caller, jobs.batch_get, number)
    assert (is_open.closed, is_open.unfinished, is_open.succeeded, is_open.ended_at) == (False, 1, 2, None)
    undo = caller.savepoint()
    call(caller, jobs.batch_close, number)
    undo()
    call(caller, jobs.batch_close, number)
    call(caller, jobs.batch_close, number)
    caller.commit()
    assert app.run() == [("load", {"part": 3}), ("survey", {"order": "1"}), ("report", {})]
    ended = call(caller, jobs.batch_get, number)
    assert (ended.closed, ended.unfinished, ended.succeeded, ended.failed) == (True, 0, 3, 0)
    assert timedelta() < ended.ended_at - ended.created_at and ended.ended_at.tzinfo is not None
    assert call(caller, jobs.batch_get, 99999) is None
    undo = caller.savepoint()
    with pytest.raises(UnknownReference, match=f"batch {number} takes no jobs: it is closed"):
        call(caller, app.load.with_options(batch=number).enqueue, 4)
    undo()
    undo = caller.savepoint()
    with pytest.raises(UnknownReference, match="batch 99999 does not exist"):
        call(caller, jobs.batch_close, 99999)
    undo()
    failing = call(caller, jobs.batch_create, on_success=app.survey.template(1), on_complete=app.report.template())
    call(caller, app.bad.with_options(batch=failing).enqueue)
    call(caller, jobs.batch_close, failing)
    caller.commit()
    assert [name for name, _ in app.run()] == ["bad", "report"]


def test_a_block_closes_its_batch_and_does_not_commit(caller: Caller, app: App) -> None:
    callbacks: dict[str, Any] = {"on_success": app.survey.template(1), "on_complete": app.report.template()}

    async def fill_async(wrong: bool) -> None:
        async with jobs.batch_async(caller.connection, **callbacks) as number:
            await app.load.with_options(batch=number).enqueue_async(caller.connection, 1)
            if wrong:
                raise KeyError("x")

    def fill(wrong: bool = False) -> None:
        if caller.run:
            caller.run(fill_async(wrong))
            return
        with jobs.batch(caller.connection, **callbacks) as number:
            app.load.with_options(batch=number).enqueue(caller.connection, 1)
            if wrong:
                raise KeyError("x")

    fill()
    assert app.written() == 0
    caller.commit()
    assert [name for name, _ in app.run()] == ["load", "survey", "report"]
    with pytest.raises(KeyError):
        fill(wrong=True)
    caller.execute("select 1")  # the transaction goes on, and is the application's to end
    caller.commit()
    assert [name for name, _ in app.run()] == ["load"], "after an exception it stays open"


def test_a_job_waits_for_those_that_it_needs(caller: Caller, app: App) -> None:
    first, second = call(caller, app.load.enqueue, 1), call(caller, app.load.with_options(delay=3600).enqueue, 2)
    call(caller, app.report.with_options(after=[first, UUID(second)]).enqueue)
    failed = call(caller, app.bad.enqueue)
    call(caller, app.load.with_options(after=(failed,)).enqueue, 4)
    call(caller, app.survey.with_options(after=[failed], run_if="ended").enqueue, 5)
    call(caller, app.load.with_options(after=[]).enqueue, 6)
    caller.commit()
    assert [name for name, _ in app.run()] == ["load", "bad", "load", "survey"]
    app.look.execute("update tide.job_wait set available_at = now() where available_at < 'infinity'")
    assert app.run() == [("load", {"part": 2}), ("report", {})]
    undo = caller.savepoint()
    nowhere = str(UUID(first[:-4] + "ffff"))
    with pytest.raises(UnknownReference, match="needs a job that does not exist") as refused:
        call(caller, app.load.with_options(after=[nowhere]).enqueue, 7)
    assert refused.value.sqlstate == "P0002"
    undo()
    undo = caller.savepoint()
    with pytest.raises(UnknownQueue, match='"nowhere" does not exist'):
        call(caller, app.load.with_options(after=[first], queue="nowhere").enqueue, 8)
    undo()
    with pytest.raises(UnknownQueue, match='"nowhere" does not exist'):
        call(caller, app.load.with_options(then=app.report.with_options(queue="nowhere").template()).enqueue, 8)
    caller.rollback()


# What a template is --------------------------------------------------------------------------------------------------


def test_every_option_of_a_template_reaches_its_column(app: App, shared: Database) -> None:
    options: Any = {
        "priority": -3,
        "max_attempts": 4,
        "timeout": 1.5,
        "run_key": "tenant é",
        "dedupe_key": "label",
        "trace_id": "trace",
        "headers": {"a": ["é"]},
        "metadata": {"b": None},
        "backoff": [1, 2],
        "then": app.report.template(),
        "delay": timedelta(hours=1),
    }
    written = (
        "j.name, kind::text, payload, priority, max_attempts, timeout_seconds, run_key, dedupe_key, trace_id, headers,"
        " metadata, options - 'then' - 'follows', options #>> '{then,0,name}', available_at - created_at > '59 min'"
    )
    with shared.connect() as connection:
        then = [
            app.load.with_options(**options).template(7),
            jobs.template(app.queue, "theirs", {"part": [1]}, **options),
            jobs.template_http(app.queue, "https://shop.example/", json=1, **{**options, "headers": None}),
            jobs.template_dramatiq(app.queue, "index", [1], message={"queue": "slow"}, delay=1),
            jobs.template_celery(app.queue, "sync", kwargs={"order": 1}),
            app.load.template(8),
        ]
        first = app.report.with_options(then=then).enqueue(connection)
    assert app.run() == [("report", {}), ("load", {"part": 8})]
    rows = app.look.execute(
        f"select {written} from tide.job j join tide.job_queue q using (outbox_id)"
        " where q.name = %s and j.name <> 'report' order by id",
        [app.queue],
    )
    columns = (-3, 4, 2, "tenant é", "label", "trace", {"a": ["é"]}, {"b": None}, {"backoff": [1, 2]}, "report", True)
    without_headers = (*columns[:6], None, *columns[7:])
    assert rows.fetchall() == [
        ("load", "p", {"part": 7}, *columns),
        ("theirs", "p", {"part": [1]}, *columns),
        ("shop.example", "h", {"url": "https://shop.example/", "method": "POST", "json": 1}, *without_headers),
        ("index", "d", {"args": [1], "kwargs": {}}, 0, 10, 30, *[None] * 5, {"queue": "slow"}, None, False),
        ("sync", "c", {"args": [], "kwargs": {"order": 1}}, 0, 10, 30, *[None] * 5, {}, None, None),
        ("load", "p", {"part": 8}, 0, 10, 30, *[None] * 5, {}, None, None),
    ]  # fmt: skip
    follows = app.look.execute("select distinct options ->> 'follows' from tide.job where name = 'theirs'").fetchall()
    assert follows == [(first,)]


def test_what_follows_a_job_runs_in_a_test_s_transaction(app: App, shared: Database) -> None:
    with shared.connect(autocommit=False) as connection:
        with jobs.batch(connection, on_complete=app.report.template()) as number:
            first = app.load.with_options(batch=number, then=app.survey.template(1)).enqueue(connection, 1)
            app.load.with_options(after=[first]).enqueue(connection, 2)
        ran = run_due(connection, app.queue)
        assert sorted(each.name for each in ran) == ["load", "load", "report", "survey"]
        connection.rollback()
    assert app.written() == 0


def test_a_handler_gets_what_those_returned_that_it_waited_for_in_a_test_s_transaction(
    caller: Caller, app: App
) -> None:
    seen: list[Any] = []

    @job(queue=app.queue)
    def total(context: jobs.Context) -> int:
        seen.append(context.results)
        return sum(context.results.values())

    needed = call(caller, app.load.enqueue_many, [{"part": 1}, {"part": 2}])
    failed = call(caller, app.bad.enqueue)
    last = call(caller, total.with_options(after=[*needed, failed], run_if="ended").enqueue)
    call(caller, total.with_options(after=[last]).enqueue)
    if caller.run:
        ran = caller.run(run_due_async(caller.connection, app.queue, raise_errors=False))
    else:
        ran = run_due(caller.connection, app.queue, raise_errors=False)
    assert [each.result for each in ran][-2:] == [3, 3]
    assert seen == [dict(zip(needed, (1, 2), strict=True)), {last: 3}]
    caller.rollback()
