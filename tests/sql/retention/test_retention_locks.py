"""Retention among publishers and readers: it gives way to them, and loses none of their messages."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import psycopg
import pytest

from tests.sql.outbox.writers import Writers
from tests.sql.retention.retention import SIZE, age, fill, parts, retain, settle
from tests.sql.support import Follower, make_pipeline, publish, publish_many, reader_of
from tests.waiting import wait_until

pytestmark = pytest.mark.each_postgres

CHEAP = "set enable_sort = off; set enable_seqscan = off; set enable_bitmapscan = off"


@pytest.fixture
def db(database):
    make_pipeline(database, partition_size=SIZE, retention_hours=0)
    with database.connect() as connection:
        yield connection


@contextmanager
def repeated(database, statement: str) -> Iterator[list[int]]:
    """The statement again and again on a session of its own, as long as the block runs. Counts how often."""
    stop, rounds = threading.Event(), [0]

    def work():
        with database.connect() as connection:
            while not stop.is_set():
                with suppress(psycopg.errors.LockNotAvailable):
                    connection.execute(statement)
                rounds[0] += 1

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            yield rounds
        finally:
            stop.set()
        working.result()


def publish_while(publisher, rounds, times=5, lock_timeout="2ms"):
    """Publishes until the others have gone round so often; a wait for a lock that is longer is an error."""
    publisher.execute(f"set lock_timeout = '{lock_timeout}'")
    wait_until(lambda: publish(publisher) and rounds[0] >= times, 30, f"{times} rounds")
    return rounds[0]


def test_a_reader_that_stays_in_a_partition_keeps_that_one_only_and_no_publisher_waits(database, db):
    fill(db, 3)
    settle(db)
    with database.connect() as reader, database.connect() as publisher:
        reader.execute("begin")
        reader.execute("select count(*) from tide.message_1_1000")
        found = retain(db)
        assert (found["truncated"], found["busy"]) == (2, True)
        assert retain(db)["dropped"] == 2
        with repeated(database, "select tide.outbox_retain('orders')") as rounds:
            assert publish_while(publisher, rounds)
        assert parts(db)["1000"] == SIZE
        reader.execute("commit")
    assert retain(db)["truncated"] == 1


def test_an_open_publisher_is_never_queued_in_front_of_others(database, db):
    """A drop needs the lock of the parent: it does not even ask while another session holds it for long."""
    fill(db, 2)
    settle(db)
    retain(db)
    with database.connect() as idle, database.connect() as publisher:
        idle.execute("begin")
        publish(idle)
        with repeated(database, "select tide.outbox_retain('orders')") as rounds:
            assert publish_while(publisher, rounds, 10)
        assert parts(db)["0"] == 0, "still there"
        idle.execute("commit")
    assert retain(db)["dropped"] == 2


def test_a_reader_of_the_whole_outbox_delays_dropping_and_nobody_else(database, db):
    fill(db, 2)
    settle(db)
    retain(db)
    with database.connect() as reader, database.connect() as publisher:
        reader.execute("begin")
        reader.execute("select count(*) from tide.message")
        with repeated(database, "select tide.outbox_retain('orders')") as rounds:
            assert publish_while(publisher, rounds, 10)
        reader.execute("commit")
    assert retain(db)["dropped"] == 2


def test_to_cut_is_not_even_asked_for_while_a_publisher_is_open(database, db):
    publish_many(db, 10)
    settle(db)
    age(db, "0", 2)
    with database.connect() as idle, database.connect() as publisher:
        idle.execute("begin")
        publish(idle)
        with repeated(database, "select tide.outbox_retain('orders')") as rounds:
            assert publish_while(publisher, rounds, 10)
        assert list(parts(db)) == ["0", "1000", "rest"]
        idle.execute("commit")
    retain(db)
    assert len(parts(db)) == 4


def test_a_prepared_transaction_counts_as_an_open_one(database, db):
    fill(db, 2)
    settle(db)
    retain(db)
    with database.connect() as publisher:
        publisher.execute("begin; set local tide.two_phase = on")
        publish(publisher)
        publisher.execute("prepare transaction 'waits'")
        assert (retain(db)["dropped"], retain(db)["busy"]) == (0, True)
        publisher.execute("commit prepared 'waits'")
    assert retain(db)["dropped"] == 2


def test_no_statement_that_publishers_could_queue_behind_waits_longer_than_50_ms(db):
    rows = db.execute("""
        select proname, setting from pg_proc, unnest(proconfig) setting
         where proname in ('outbox_retain', 'outbox_extend') and setting like 'lock_timeout%' order by 1""").fetchall()
    assert rows == [("outbox_extend", "lock_timeout=50ms"), ("outbox_retain", "lock_timeout=50ms")]


def test_publishers_of_the_default_partition_do_not_queue_long_behind_an_extension(database, db):
    publish_many(db, 3 * SIZE)
    with database.connect() as idle, database.connect() as publisher:
        idle.execute("begin")
        publish(idle)
        with repeated(database, "select tide.outbox_extend('orders')") as rounds:
            assert publish_while(publisher, rounds, 5, lock_timeout="400ms")
        idle.execute("commit")


def test_nothing_is_lost_or_refused_while_partitions_are_emptied_and_dropped_under_load(database):
    # A range that is attached has to be out of reach of what is published meanwhile.
    make_pipeline(database, partition_size=3 * SIZE, retention_hours=0)
    writers, stop = Writers(database, two_phase=False), threading.Event()
    done = {"truncated": 0, "dropped": 0}

    def retaining():
        with database.connect() as connection:
            while not stop.is_set():
                with suppress(psycopg.errors.LockNotAvailable):
                    connection.execute("select tide.outbox_extend('orders')")
                found = retain(connection)
                assert found["lost"] == 0
                for what in done:
                    done[what] += found[what]

    with reader_of(database, batch_size=50) as reader, ThreadPoolExecutor(1) as pool:
        follower, retainer = Follower(reader), pool.submit(retaining)
        try:
            with writers.running(writers=4, pauses_ms=(0, 0, 2)):
                wait_until(
                    lambda: follower.step() is not None and (retainer.done() or min(done.values()) > 1),
                    60,
                    "partitions go",
                )
        finally:
            stop.set()
        retainer.result()
        assert follower.to_end() == sorted(writers.committed["orders"])


def test_nothing_is_lost_or_refused_while_partitions_are_cut_under_load(database):
    """A partition may be cut whenever its oldest message looks old."""
    size = 1_000_000
    make_pipeline(database, partition_size=size, retention_hours=0)
    publishing = "select tide.outbox_publish('orders', '1')"
    with reader_of(database) as reader, database.connect() as db:
        follower = Follower(reader)
        cuts: set[object] = set()

        def cut():
            follower.step()
            db.execute("""
                update tide.message set created_at = now() - interval '2 hours'
                 where id = (select min(id) from tide.message) and created_at > now() - interval '1 hour'""")
            retain(db)
            cuts.update(db.execute(f"select first_id from tide.outbox_partitions(1) where first_id % {size} <> 0"))
            return len(cuts)

        with repeated(database, publishing) as one, repeated(database, publishing) as other:
            wait_until(lambda: cut() > 2, 60, "partitions are cut")
        assert len(follower.to_end()) == one[0] + other[0] == follower.ids[-1]


# Plans ---------------------------------------------------------------------------------------------------------------


def test_whether_a_partition_may_go_is_seen_from_one_entry_of_its_index(db):
    fill(db, 2)
    plan = explain(db, "select id, created_at from tide.message_1_1000 where outbox_id = 1 order by id desc limit 1")
    assert "Index Scan Backward using message_1_1000_outbox_id_id_idx" in plan
    assert "Sort  (" not in plan and "Seq Scan" not in plan


def test_what_a_group_holds_is_found_along_the_index(db):
    fill(db, 3)
    plan = explain(db, "select id, created_at from tide.message where outbox_id = 1 and id > 1500 order by id limit 1")
    assert "Seq Scan" not in plan and "Sort  (" not in plan
    assert "message_1_0_outbox_id_id_idx" not in plan, "what is settled is not looked at"


def test_the_settings_that_hold_these_plans_are_those_of_the_functions(db):
    for name in ("newest_message", "outbox_holds"):
        config = db.execute("select proconfig from pg_proc where proname = %s", [name]).fetchone()[0]
        assert {"enable_sort=off", "enable_seqscan=off", "enable_bitmapscan=off"} <= set(config)


def explain(connection, statement):
    connection.execute(CHEAP)
    return "\n".join(line for (line,) in connection.execute(f"explain {statement}"))
