"""The page for those who come from Celery or procrastinate: its examples run, and its jobs are what it says."""

import types

from relay.jobs.testing import own_handlers
from tests.docs.pages import blocks, text_of
from tests.services.postgres import Database

PAGE = "migrating-from/celery-procrastinate"


def test_the_examples_run(database: Database) -> None:
    with database.connect() as owner:
        owner.execute("select tide.job_queue_create('mail'); create table orders (id int)")
    with own_handlers():
        module = types.ModuleType("page")
        module.__dict__["DATABASE_URL"] = database.url
        for block in blocks(PAGE, "python"):
            exec(compile(block, PAGE, "exec"), module.__dict__)
    with database.connect() as db:
        for statement in blocks(PAGE):
            db.execute(statement)
        found = db.execute(
            "select kind, max_attempts, available_at > now(), dedupe_key from tide.job order by outbox_id, id"
        )
        assert found.fetchall() == [("p", 5, None, None), ("p", 5, True, "order:42"), ("c", 10, None, None)]


def test_each_block_is_of_a_kind_that_a_test_runs() -> None:
    """`text`: the code of others."""
    kinds = {line[3:] for line in text_of(PAGE).splitlines() if line.startswith("```")}
    assert kinds == {"", "python", "sql", "text"}
