"""What is done with one outbox asks nothing of thousands of others: no table, no lock, no wait."""

from collections.abc import Callable
from typing import Any, ClassVar

import psycopg
import pytest

from relay.database.connection import Connection
from relay.operations import outboxes, pages
from relay.operations.doctor import database as checks
from relay.operations.status import read_status
from relay.settings import Settings
from tests.sql.support import make_outbox, make_pipeline, publish, publish_many, relay_session
from workers import maintenance

HUNDRED = 100
NONE = Settings(postgres_url="postgresql://")


@pytest.fixture
def db(database):
    with database.connect() as connection:
        yield connection


def far(connection, name: str) -> int:
    """An outbox that is made a hundred outboxes later; its number."""
    connection.execute(
        "select setval(pg_get_serial_sequence('tide.outbox', 'outbox_id'), %s + max(outbox_id)) from tide.outbox",
        [HUNDRED],
    )
    return make_outbox(connection, name)


def test_who_publishes_sets_up_a_hundred_outboxes_at_most(db):
    numbers = [make_outbox(db, name) for name in ("a", "b", "c")] + [far(db, "d"), far(db, "e")]
    assert [number // HUNDRED for number in numbers] == [0, 0, 0, 1, 2]
    trees = (
        "select inhparent::regclass::text, count(*) from pg_inherits where inhparent = any (%s::regclass[]) group by 1"
    )
    found = dict(db.execute(trees, [["tide.message", "tide.message_hundred_0", "tide.message_hundred_1"]]).fetchall())
    assert found == {"tide.message": 3, "tide.message_hundred_0": 3, "tide.message_hundred_1": 1}
    with db.transaction():
        publish(db, "d")
        locked = """
            select array_agg(distinct c.relname::text) from pg_locks l join pg_class c on c.oid = l.relation
             where l.pid = pg_backend_pid() and c.relname ~ '^message_hundred_[0-9]+$'"""
        assert db.execute(locked).fetchone() == (["message_hundred_1"],)


def test_an_outbox_is_dropped_beside_an_open_publisher_of_another_hundred(database, db):
    make_outbox(db, "orders")
    far(db, "old")
    with database.connect(autocommit=False) as idle:
        publish(idle, "orders")
        db.execute("select tide.outbox_drop('old')")
        idle.commit()
    assert db.execute("select name from tide.outbox").fetchall() == [("orders",)]


def test_a_hundred_is_made_by_one_of_two_that_come_first(database, db):
    """The second waits for the first, and finds the hundred made."""
    with database.connect(autocommit=False) as first:
        make_outbox(first, "a")
        with database.connect() as second:
            second.execute("set statement_timeout = '10s'")
            first.commit()
            make_outbox(second, "b")
    assert publish(db, "a") == publish(db, "b") == 1


def test_queues_of_jobs_are_in_hundreds_too(db):
    db.execute("select tide.job_queue_create('mail')")
    tables = (
        "select to_regclass('tide.job_hundred_0') is not null, to_regclass('tide.job_attempt_hundred_0') is not null"
    )
    assert db.execute(tables).fetchone() == (True, True)


OFTEN = 8
"""So often that a plan would be kept that is for any outbox."""
CALLS = [
    "select tide.outbox_publish('orders', '1')",
    "select tide.outbox_publish_many('orders', array['1', '2']::jsonb[])",
    "select tide.poll_outbox('g', 'worker')",
    "select tide.poll_outbox('g', 'worker'); select tide.commit_offset('g', 'worker', 2)",
    "select * from tide.consumer_lag('g')",
    "select * from tide.consumer_status('g')",
    "select * from tide.outbox_status('orders')",
    "select * from tide.outbox_holds('orders')",
    "select * from tide.outbox_retain('orders')",
    "select tide.outbox_highest_id(1)",
    "select tide.outbox_skip_ids('orders', 1000, true)",
    "select tide.outbox_extend('orders')",
    "select * from tide.relay_replay_preview('p', 1, 2)",
    "select * from tide.relay_replay_span('p', now() - interval '1 hour', now())",
    "select tide.relay_replay('p', 1, 2)",
]


@pytest.mark.parametrize("call", CALLS)
def test_no_call_touches_the_tables_of_another_outbox(database, db, call):
    """A plan over the root locks, and sets up, what it is not told at once to leave out."""
    make_pipeline(database)
    for name in ("a", "b", "c"):
        make_outbox(db, name)
    far(db, "d")
    db.execute("select tide.create_consumer_group('g', 'orders')")
    publish_many(db, 2)
    db.execute("update tide.consumer_group set offset_id = 2 where not polled")
    others = """
        select array_agg(distinct c.relname::text) from pg_locks l join pg_class c on c.oid = l.relation
         where l.pid = pg_backend_pid() and c.relname ~ '^message_(hundred_)?[0-9]'
           and c.relname !~ '^message_(1|hundred_0)(_|$)'"""
    touched = []
    for _ in range(OFTEN):
        with db.transaction(force_rollback=True):
            db.execute(call)
            touched += db.execute(others).fetchone()
    assert touched == [None] * OFTEN


class Statements(psycopg.ClientCursor):
    """A cursor that keeps what it executes, with the parameters."""

    seen: ClassVar[list[Any]] = []

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        self.seen.append((query, params))
        return super().execute(query, params, **options)


def asked_at_once(connection: Connection, statements: list[Any]) -> dict[str, int]:
    """By statement: of how many outboxes it locks something until it ends."""
    locked = """
        select count(distinct substring(c.relname from '^message_([0-9]+)'))
          from pg_locks l join pg_class c on c.oid = l.relation where l.pid = pg_backend_pid()"""
    found: dict[str, int] = {}
    for statement, parameters in statements:
        with connection.transaction(force_rollback=True):
            connection.execute(statement, parameters)
            row = connection.execute(locked).fetchone()
        assert row
        found[str(statement)] = max(row[0], found.get(str(statement), 0))
    return found


DONE: dict[str, Callable[[Connection], object]] = {
    "relay outbox list": outboxes.list_outboxes,
    "relay status": read_status,
    "partitions": lambda connection: list(checks.partitions(connection, NONE)),
    "ids": lambda connection: list(checks.ids(connection, NONE)),
    "retention": lambda connection: list(checks.retention(connection, NONE)),
    "maintenance": maintenance.run_once,
}


@pytest.mark.parametrize("what", DONE)
def test_no_statement_asks_all_outboxes_at_once(database, db, monkeypatch, what):
    """The lock table of a server has room for a few thousand locks."""
    monkeypatch.setattr(pages, "PAGE_OUTBOXES", 2)
    monkeypatch.setattr(maintenance, "PAGE_OUTBOXES", 2)
    for name in ("a", "b", "c", "d", "e"):
        make_pipeline(database, name, name)
        db.execute("select tide.relay_disable(%s)", [name])
        publish(db, name)
    seen = Statements.seen
    seen.clear()
    with relay_session(database.url) as session:
        session.cursor_factory = Statements
        DONE[what](session)
    with relay_session(database.url) as session:
        asked = asked_at_once(session, [*seen])
    assert max(asked.values()) in (1, 2), asked
