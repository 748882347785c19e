"""Storage by id range: extended ahead of need, never a condition of publishing, invisible to readers."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.sql.consumers.consumers import commit, consumer_group, offset, poll
from tests.sql.outbox.writers import Writers
from tests.sql.support import (
    Follower,
    horizon,
    make_outbox,
    make_pipeline,
    publish,
    publish_many,
    reader_of,
    refused,
    relay_session,
    run,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.each_postgres

SIZE = 1000


@pytest.fixture
def db(database):
    with database.connect() as connection:
        make_outbox(connection, partition_size=SIZE)
        yield connection


def extend(connection):
    return connection.execute("select tide.outbox_extend('orders')").fetchone()[0]


def wanting(connection):
    """The outboxes that the scheduler would extend."""
    [(_, _, needing)] = run(connection, "outbox_page", after_id=0, max_outboxes=100)
    return sorted(needing)


def rows(connection):
    """How many rows each partition has."""
    found = connection.execute("select tableoid::regclass::text, count(*) from tide.message group by 1")
    return {name.removeprefix("tide.message_1_"): number for name, number in found}


def test_a_new_outbox_has_two_partitions_and_the_default_and_wants_no_more(db):
    parts = db.execute("select relid::text from pg_partition_tree('tide.message') where isleaf order by 1").fetchall()
    assert parts == [("tide.message_1_0",), ("tide.message_1_1000",), ("tide.message_1_rest",)]
    assert wanting(db) == []
    assert extend(db) == 0


def test_the_next_partition_is_made_while_a_whole_one_is_unused(db):
    publish_many(db, SIZE - 1)
    assert wanting(db) == []
    publish(db)
    assert wanting(db) == ["orders"]
    assert extend(db) == 1
    assert wanting(db) == []
    publish_many(db, 2 * SIZE - 1)
    assert rows(db) == {"0": 999, "1000": 1000, "2000": 1000}


def test_without_extension_messages_fall_into_the_default_partition_and_are_read_in_order(database, db):
    make_pipeline(database)
    ids = publish_many(db, 3500)
    assert rows(db) == {"0": 999, "1000": 1000, "rest": 1501}
    with reader_of(database, batch_size=300) as reader:
        assert Follower(reader).to_end() == ids


def test_extension_after_the_default_partition_was_needed_starts_above_it(database, db):
    make_pipeline(database)
    ids = publish_many(db, 3500)
    assert wanting(db) == ["orders"]
    assert extend(db) == 1
    assert wanting(db) == []
    ids += publish_many(db, 1990)
    assert extend(db) == 1
    ids += publish_many(db, 1010)
    assert rows(db) == {"0": 999, "1000": 1000, "rest": 3000, "5000": 1000, "6000": 501}
    with reader_of(database, batch_size=300) as reader:
        assert Follower(reader).to_end() == ids


def test_a_jump_over_many_partitions_does_not_make_them_all(db):
    db.execute("select setval(ids, 50000000) from tide.outbox")
    assert extend(db) == 1
    assert wanting(db) == []


def test_extension_lets_open_publishers_of_other_partitions_go_on(database, db):
    publish_many(db, SIZE)
    with database.connect() as publisher:
        publisher.execute("begin")
        publish(publisher)
        assert extend(db) == 1
        publish(publisher)
        publisher.execute("commit")
    assert horizon(db) == (SIZE + 2, 0)


def test_extension_gives_up_on_a_lock_and_succeeds_later(database, db):
    publish_many(db, 2500)
    with database.connect() as publisher:
        publisher.execute("begin")
        publish(publisher)
        with refused("55P03"):
            extend(db)
        publisher.execute("commit")
    assert extend(db) == 1


def test_two_extensions_at_once_make_one_partition(database, db):
    publish_many(db, SIZE)

    def run_one(_):
        with database.connect() as connection:
            while True:
                # If it does not get the lock in time, it retries later, as the scheduler does.
                with contextlib.suppress(psycopg.errors.LockNotAvailable):
                    return extend(connection)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(run_one, range(4))) == [0, 0, 0, 1]


def test_what_publishers_took_while_an_extension_waited_is_beyond_its_reach(database, db):
    publish_many(db, SIZE)
    with database.connect() as blocker, ThreadPoolExecutor(1) as pool:
        made = 0
        while not made:
            blocker.execute("begin")
            blocker.execute("lock table tide.message_1_rest in share mode")
            extension = pool.submit(extend, db)
            wait_until(lambda: extension.done() or blocker.execute("select from pg_locks where not granted").rowcount)  # noqa: B023
            blocker.execute("select setval(ids, 2400) from tide.outbox")
            blocker.execute("commit")
            # It waits for a moment only.
            with contextlib.suppress(psycopg.errors.LockNotAvailable):
                made = extension.result()
    publish_many(db, 10)
    assert rows(db) == {"0": 999, "1000": 1, "rest": 10}


def test_publishers_that_reach_the_border_while_a_partition_is_attached_are_not_refused(database, db):
    """PostgreSQL sent their rows to the default partition, and would refuse them there once the range is attached."""
    db.execute("select setval(ids, 1995) from tide.outbox")
    with database.connect() as publisher, ThreadPoolExecutor(1) as pool:
        db.execute("begin")
        assert extend(db) == 1
        publishing = pool.submit(publish_many, publisher, 10)
        wait_until(lambda: db.execute("select from pg_locks where not granted").rowcount)
        db.execute("commit")
        assert publishing.result() == list(range(1996, 2006))
    assert rows(db) == {"1000": 4, "rest": 6}


@pytest.mark.parametrize("publish_one", [publish, lambda connection: publish_many(connection, 1)], ids=["one", "many"])
def test_a_transaction_that_published_before_a_partition_was_made_may_publish_into_it(database, db, publish_one):
    """It has the tables open from before, and PostgreSQL would refuse its rows in the default partition."""
    db.execute("select setval(ids, 1200) from tide.outbox")
    with database.connect() as publisher:
        publisher.execute("begin")
        publish_one(publisher)
        publish_one(publisher)  # with all that it needs open
        assert extend(db) == 1
        db.execute("select setval(ids, 2000) from tide.outbox")
        publish_one(publisher)
        publisher.execute("commit")
    assert rows(db) == {"1000": 2, "2000": 1}


def test_a_transaction_that_polled_before_a_partition_was_made_sees_what_is_in_it(database, db):
    """It has the tables open from before, and would settle unread what it does not see."""
    consumer_group(db)
    db.execute("select setval(ids, 1200) from tide.outbox")
    with database.connect() as consumer:
        consumer.execute("begin")
        for _ in range(4):
            last = publish(db)
            assert poll(consumer, "a") == [last]
            commit(consumer, "a", last)
        assert extend(db) == 1
        db.execute("select setval(ids, 2000) from tide.outbox")
        ids = publish_many(db, 3)
        assert poll(consumer, "a") == ids
        assert offset(consumer) == last
        consumer.execute("commit")


def test_no_partition_is_made_under_a_publish_of_many_messages(database, db):
    """It knows the partitions from its beginning, however long it takes, and could reach one that is made meanwhile."""
    stop = threading.Event()

    def extending():
        with relay_session(database.url) as session:
            while not stop.is_set():
                with contextlib.suppress(psycopg.errors.LockNotAvailable):
                    extend(session)

    with ThreadPoolExecutor(1) as pool:
        extender = pool.submit(extending)
        try:
            ids = [number for _ in range(3) for number in publish_many(db, 20_000)]
        finally:
            stop.set()
        extender.result()
    assert ids == list(range(1, 60_001))


def test_a_partition_that_publishers_come_near_while_it_is_made_is_not_made(database, db):
    with database.admin() as admin:
        admin.execute("create function fast() returns event_trigger language plpgsql as"
                      " $$ begin perform setval('tide.message_1_ids', 1900); end $$")  # fmt: skip
        admin.execute(
            "create event trigger fast on ddl_command_end when tag in ('CREATE TABLE') execute function fast()"
        )
        publish_many(db, SIZE)
        with refused("55P03", "came near the new partition"):
            extend(db)
        admin.execute("drop event trigger fast")
    publish_many(db, 200)
    assert extend(db) == 1
    assert rows(db) == {"0": 999, "1000": 100, "rest": 101}


def test_nothing_is_lost_or_reordered_at_the_borders_while_partitions_are_made_under_load(database):
    make_pipeline(database, partition_size=5000)
    writers, stop = Writers(database), threading.Event()

    def extending():
        made = 0
        with relay_session(database.url) as session:
            while not stop.is_set():
                try:
                    made += extend(session) if wanting(session) else 0
                except psycopg.errors.LockNotAvailable:
                    continue
        return made

    with reader_of(database, batch_size=50) as reader, ThreadPoolExecutor(1) as pool:
        follower, extender = Follower(reader), pool.submit(extending)
        try:
            with writers.running(writers=8, pauses_ms=(0, 0, 5)):
                wait_until(lambda: follower.step() is not None and writers.count() > 11000, 120)
        finally:
            stop.set()
        assert follower.to_end() == sorted(writers.committed["orders"])
        assert extender.result() >= 3


def test_where_the_partitions_end_is_remembered_whatever_makes_them(db):
    def remembered() -> int:
        [(end, upper)] = db.execute("select partitions_end, tide.outbox_upper(outbox_id) from tide.outbox").fetchall()
        assert end == upper
        return end

    assert remembered() == 2 * SIZE
    publish_many(db, SIZE)
    extend(db)
    assert remembered() == 3 * SIZE
    publish_many(db, 5 * SIZE)
    extend(db)
    assert remembered() == 9 * SIZE
    db.execute("select tide.outbox_skip_ids('orders', 100000)")
    assert remembered() > 100_000


def test_extending_makes_up_for_partitions_that_were_dropped_by_hand(db):
    db.execute("drop table tide.message_1_1000")
    publish_many(db, 10)
    assert wanting(db) == [], "no one looks into the catalogs on a timer"
    assert extend(db) == 1
    db.execute("update tide.outbox set partitions_end = 99000")
    assert extend(db) == 0
    assert db.execute("select partitions_end from tide.outbox").fetchone() == (2 * SIZE,)
