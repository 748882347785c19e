"""The page on jobs in Python: its examples run, from top to bottom, and its tables are those of the code."""

import ast
import inspect
import re
import types
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

from relay import jobs
from relay.jobs import middleware
from relay.jobs.options import JobOptions
from relay.jobs.testing import own_handlers
from tests.docs.pages import blocks, text_of
from tests.outbox.rows import django_database, event_loop
from tests.services.postgres import Database
from tests.test_public_names import ERRORS_OF_JOBS

PAGE = "jobs/python"


@pytest.fixture
def _own_handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(middleware, "_scopes", [])
    with own_handlers():
        yield


def table(heading: str) -> list[str]:
    """The names in the first column of the table under a heading, or of the one that begins with it."""
    rows = re.search(rf"^{re.escape(heading)}.*\n\|[-|]+\n((?:\|.*\n)+)", text_of(PAGE), re.MULTILINE)
    assert rows, heading
    return re.findall(r"`(\w+)", "".join(row.split("|")[1] for row in rows[1].splitlines()))


@pytest.mark.usefixtures("_own_handlers")
def test_every_example_runs(database: Database) -> None:
    with database.connect() as owner:
        owner.execute("select tide.job_queue_create('mail'), tide.job_queue_create('default')")
        owner.execute("create table account (id int, balance int); insert into account values (7, 1)")

    with django_database(database.url), event_loop() as run:
        page = run_all(database, run)
    with database.connect() as db:
        orders = db.execute("select (payload -> 'order_id')::int from tide.job where name = 'mail.receipt' order by id")
        assert [order for (order,) in orders] == [*range(42, 52)]
        kinds = db.execute(
            "select string_agg(kind, '' order by id) from tide.job where name not in ('mail.receipt', 'resize')"
        )
        assert kinds.fetchone() == ("hdc",)
    check_outcomes(page, database)


@pytest.mark.usefixtures("_own_handlers")
def test_every_example_of_what_follows_runs(database: Database) -> None:
    with database.connect() as owner, event_loop() as run:
        owner.execute("select tide.job_queue_create('imports')")
        run_all(database, run, "jobs/chains")
        found = [(each.name, each.payload["file"]) for each in jobs.testing.run_due(owner, "imports")]
        assert Counter(found) == {
            ("download", "a.csv"): 1,
            ("parse", "a.csv"): 3,
            ("publish", "a.csv"): 1,
            ("report", "a.csv"): 1,
            ("split", "b.csv"): 1,
            ("parse", "b.csv"): 2,
            ("report", "b.csv"): 1,
            ("download", "prices.csv"): 1,
            ("download", "stock.csv"): 1,
            ("publish", "both.csv"): 1,
            ("report", "both.csv"): 1,
        }
        owner.execute("update tide.job_wait set available_at = now()")
        assert [each.name for each in jobs.testing.run_due(owner, "imports")] == ["report"]


def run_all(database: Database, run: Callable[[Any], Any], page: str = PAGE) -> dict[str, Any]:
    """What the blocks define."""
    url = database.url.replace("postgresql://", "postgresql+psycopg://")
    module = types.ModuleType("page")
    module.__dict__.update(
        DATABASE_URL=database.url,
        engine=sqlalchemy.create_engine(url),
        async_engine=create_async_engine(url),
        asyncpg_connection=run(asyncpg.connect(database.url)),
        opened=[],
    )
    for block in blocks(page, "python"):
        made = eval(compile(block, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), module.__dict__)
        if inspect.isawaitable(made):
            run(made)
    run(module.asyncpg_connection.close())
    run(module.async_engine.dispose())
    module.engine.dispose()
    return module.__dict__


def check_outcomes(page: dict[str, Any], database: Database) -> None:
    with psycopg.connect(database.url) as connection:
        connection.execute("update tide.job_wait set available_at = 'infinity'")
        page["charge"].enqueue_many(connection, [{"account": each} for each in ("busy", "asleep", "closed", "open")])
        ran = jobs.testing.run_due(connection, "mail", raise_errors=False)
        outcomes = [each.outcome for each in ran if each.name == "charge"]
        assert outcomes == ["retried", "snoozed", "dead", "succeeded"]
        images = Counter(each.payload["image"] for each in jobs.testing.run_due(connection, "default"))
        assert images == {"a.png": 2, "b.png": 1, "sheet.png": 1}
        connection.rollback()
    with jobs.testing.inline():
        page["credit"].enqueue(None, account=7, amount=2)
    with database.connect() as db:
        assert db.execute("select balance from account").fetchone() == (3,)
    assert page["opened"] == []


def test_the_tables_are_those_of_the_code() -> None:
    parameters = inspect.signature(jobs.job).parameters
    assert table("| `@job(...)`") == [name for name in parameters if name != "function"]
    assert sorted(table("| option |")) == sorted(JobOptions.__optional_keys__)
    templates = {name for name in jobs.__all__ if name.startswith(("batch", "template")) and "async" not in name}
    assert set(table("| `jobs.` |")) == templates
    assert table("| error |") == [name for name in ERRORS_OF_JOBS if name != "JobError"]
    public = {name for name in dir(jobs.Context) if not name.startswith("_")}
    assert set(table("| `context.` |")) == public - {"report", "lease_id", "number", "completed", "completed_with"}
