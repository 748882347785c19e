"""Table outboxes among sessions that publish, write and enable at the same time."""

import pytest

from tests.sql.support import horizon, refused
from tests.sql.table_outboxes.table_outboxes import enable, payloads, published
from tests.waiting import wait_until

pytestmark = pytest.mark.each_postgres


@pytest.fixture
def db(database):
    with database.connect() as connection:
        yield connection


def test_enabling_gives_up_when_writers_hold_the_table(database, db):
    db.execute("create table orders (id int)")
    with database.connect(autocommit=False) as writer:
        writer.execute("insert into orders values (1)")
        with refused("55P03"):
            enable(db)
        writer.rollback()
    enable(db)


def test_writers_at_the_same_time_do_not_wait_for_each_other(database, db):
    db.execute("create table orders (id int primary key)")
    enable(db, mode="row")
    with database.connect(autocommit=False) as first, database.connect(autocommit=False) as second:
        first.execute("insert into orders values (1)")
        second.execute("set lock_timeout = '2s'")
        second.execute("insert into orders values (2)")
        second.commit()
        wait_until(lambda: [p["key"]["id"] for p in payloads(db)] == [2])
        first.commit()
    assert sorted(p["key"]["id"] for p in payloads(db)) == [1, 2]


def test_an_open_writer_holds_the_horizon_by_one_mark_and_a_savepoint_takes_it_back(database, db):
    db.execute("create table orders (id int primary key)")
    enable(db)
    marks = "select count(*) from pg_locks where locktype = 'advisory' and classid = tide.lock_class(1)::oid"
    with database.connect(autocommit=False) as writer:
        writer.execute("savepoint s; insert into orders values (1)")
        assert db.execute(marks).fetchone() == (1,)
        writer.execute("rollback to s")
        assert db.execute(marks).fetchone() == (0,)
        writer.execute("insert into orders values (2); insert into orders values (3)")
        db.execute("insert into orders values (4)")
        writer.execute("insert into orders values (5)")
        assert db.execute(marks).fetchone() == (1,)
        [held] = horizon(db, "public.orders")[:1]
        assert db.execute("select count(*) from tide.message where id <= %s", [held]).fetchone() == (0,)
    held, open_publishers = horizon(db, "public.orders")
    assert (held, open_publishers) == (5, 0)
    assert [row["id"] for _, rows, _ in published(db) for row in rows] == [2, 3, 4, 5]
