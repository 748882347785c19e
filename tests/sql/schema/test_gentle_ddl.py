"""Outboxes are made and dropped, and tables become outboxes, while others publish: no one waits for long."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.sql.support import make_outbox, publish, publish_many, refused
from tests.waiting import wait_until

pytestmark = pytest.mark.each_postgres

# A wait for a lock that is longer is an error of the publisher.
MOMENT = "5ms"


@pytest.fixture
def db(database):
    with database.connect() as connection:
        make_outbox(connection)
        yield connection


@pytest.fixture
def idle(database, db):
    """A publisher of the first outbox whose transaction stays open."""
    with database.connect(autocommit=False) as connection:
        publish(connection)
        yield connection


@contextmanager
def publishing(database, lock_timeout: str = MOMENT) -> Iterator[list[int]]:
    """Another publisher of the first outbox, one message after the other. Its ids; it must not wait for a lock."""
    stop, ids = threading.Event(), []

    def work():
        with database.connect() as connection:
            connection.execute(f"set lock_timeout = '{lock_timeout}'")
            while not stop.is_set():
                ids.append(publish(connection))

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            wait_until(lambda: ids or working.done(), what="someone publishes")
            yield ids
        finally:
            stop.set()
        working.result()


def test_an_outbox_is_made_beside_open_publishers_and_keeps_nobody_waiting_until_it_is_committed(database, db, idle):
    with publishing(database) as ids, database.connect(autocommit=False) as maker:
        maker.execute("set lock_timeout = '1s'")
        make_outbox(maker, "other")
        assert publish(maker, "other") == 1
        before = len(ids)
        wait_until(lambda: len(ids) > before + 20, what="others publish while it is not committed")
        maker.commit()
    assert publish(db, "other") == 2


def test_an_outbox_is_made_while_a_reader_of_all_messages_is_open(database, db):
    with database.connect(autocommit=False) as reader:
        reader.execute("select count(*) from tide.message")
        db.execute("set lock_timeout = '1s'")
        assert make_outbox(db, "other") == 2


def test_an_outbox_made_this_way_is_like_any_other(db):
    make_outbox(db, "other", partition_size=1000)
    assert [row[0] for row in db.execute("select part::text from tide.outbox_partitions(2)")] == [
        "tide.message_2_0", "tide.message_2_1000", "tide.message_2_rest"
    ]  # fmt: skip
    indexes = """select i.indrelid::regclass::text, p.indrelid::regclass::text
                   from pg_index i
                   join pg_inherits h on h.inhrelid = i.indexrelid
                   join pg_index p on p.indexrelid = h.inhparent
                  where i.indrelid::regclass::text like 'tide.message_2%' and i.indisunique and i.indisvalid"""
    assert sorted(db.execute(indexes)) == [
        ("tide.message_2", "tide.message_hundred_0"), ("tide.message_2_0", "tide.message_2"),
        ("tide.message_2_1000", "tide.message_2"), ("tide.message_2_rest", "tide.message_2"),
    ]  # fmt: skip
    assert publish_many(db, 2500, "other")[-1] == 2500
    assert db.execute("select count(*) from tide.message where outbox_id = 2").fetchone() == (2500,)
    with refused("23514"):
        db.execute("insert into tide.message_2 values (1, 5, now(), 0, null, '{}', '1')")


def test_an_outbox_adds_nothing_to_what_postgresql_reads_whole_for_each_partition(db):
    """Else each outbox would cost more than the one before."""
    make_outbox(db, "before")
    constraints = (
        "select count(*), count(*) filter (where conrelid::regclass::text like 'tide.message%') from pg_constraint"
    )
    before = db.execute(constraints).fetchone()
    make_outbox(db, "other", partition_size=1000)
    publish_many(db, 2500, "other")
    assert db.execute("select tide.outbox_extend('other')").fetchone() == (1,)
    assert db.execute(constraints).fetchone() == before == (before[0], 0)


def test_a_table_becomes_an_outbox_beside_a_transaction_that_has_published_and_then_writes_it(database, db, idle):
    db.execute("create table orders (id int)")
    with ThreadPoolExecutor(1) as pool, publishing(database):
        db.execute("begin; select tide.table_outbox_enable('orders')")
        writing = pool.submit(idle.execute, "insert into orders values (1)")
        wait_until(lambda: blocked(database, db), what="the writer waits for the table")
        db.execute("commit")
        writing.result()
    idle.commit()
    assert db.execute("select (tide.outbox_status('public.orders')).last_id").fetchone() == (1,)


def test_an_outbox_is_dropped_beside_publishers_that_come_and_go(database, db):
    make_outbox(db, "old")
    publish_many(db, 10, "old")
    with publishing(database, "400ms") as ids:
        db.execute("select tide.outbox_drop('old')")
        before = len(ids)
        wait_until(lambda: len(ids) > before, what="others publish")
    assert db.execute("select to_regclass('tide.message_2'), to_regclass('tide.message_2_ids')").fetchone() == (
        None,
        None,
    )


def test_dropping_gives_up_with_a_reason_and_never_puts_others_in_a_queue(database, db, idle):
    make_outbox(db, "old")
    publish_many(db, 10, "old")
    with publishing(database), refused("55P03", 'outbox "old" was not dropped', hint="open_publishers"):
        db.execute("select tide.outbox_drop('old')")
    assert publish(db, "old") == 11
    idle.commit()
    db.execute("select tide.outbox_drop('old')")


def test_dropping_waits_for_a_transaction_that_ends_soon(database, db, idle):
    make_outbox(db, "old")
    with ThreadPoolExecutor(1) as pool, database.connect() as dropper:
        dropping = pool.submit(dropper.execute, "select tide.outbox_drop('old')")
        running = "select count(*) from pg_stat_activity where pid = %s and state = 'active'"
        wait_until(lambda: db.execute(running, [dropper.info.backend_pid]).fetchone() == (1,), what="it tries")
        idle.commit()
        dropping.result()
    assert db.execute("select name from tide.outbox").fetchall() == [("orders",)]


def test_a_vacuum_of_the_outbox_does_not_stop_its_dropping(database, db):
    """Autovacuum gives way to who waits for a second: that is spent where no other outbox is concerned."""
    make_outbox(db, "old")
    with database.connect(autocommit=False) as vacuum, ThreadPoolExecutor(1) as pool, publishing(database, "400ms"):
        vacuum.execute("lock table tide.message_2_0 in share update exclusive mode")
        with database.connect() as dropper:
            dropping = pool.submit(dropper.execute, "select tide.outbox_drop('old')")
            wait_until(lambda: blocked(database, db), what="it waits for the partition")
            vacuum.rollback()
            dropping.result()


def test_letting_a_table_be_no_outbox_and_dropping_it_does_not_end_a_transaction_that_publishes(database, db, idle):
    db.execute("create table orders (id int); select tide.table_outbox_enable('orders')")
    with ThreadPoolExecutor(1) as pool, database.connect() as other:
        disabling = pool.submit(other.execute, "select tide.table_outbox_disable('orders', drop_outbox => true)")
        wait_until(lambda: held(db, "orders", "AccessExclusiveLock"), what="the table is locked")
        idle.execute("insert into orders values (1)")
        with refused("55P03", 'outbox "public.orders" was not dropped'):
            disabling.result()
    idle.commit()
    assert db.execute("select (tide.outbox_status('public.orders')).last_id").fetchone() == (1,)


def blocked(database, connection) -> bool:
    """Whether a session of this database waits for a lock."""
    row = connection.execute(
        "select count(*) from pg_stat_activity where datname = %s and cardinality(pg_blocking_pids(pid)) > 0",
        [database.name],
    ).fetchone()
    return bool(row[0])


def held(connection, relation: str, mode: str) -> bool:
    row = connection.execute(
        "select count(*) from pg_locks where relation = to_regclass(%s) and mode = %s and granted", [relation, mode]
    ).fetchone()
    return bool(row[0])
