"""What a turn of retention costs: it waits no longer than it must."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.sql.retention.retention import SIZE, age, fill, make_line, parts, retain, settle
from tests.sql.support import make_outbox, publish


@pytest.fixture
def db(database):
    with database.connect() as connection:
        make_outbox(connection, partition_size=SIZE, retention_hours=0)
        make_line(connection)
        yield connection


def test_the_default_partition_is_looked_at_though_others_stay(db):
    fill(db, 1)
    db.execute("select setval(ids, 4500) from tide.outbox; select tide.outbox_publish('orders', '1')")
    settle(db)
    db.execute("select tide.outbox_set_retention('orders', 1)")
    age(db, "rest", 2)
    assert retain(db)["truncated"] == 1
    assert (parts(db)["0"], parts(db)["rest"]) == (SIZE - 1, 0)


def test_a_reader_that_has_all_partitions_open_is_waited_for_a_few_times_only(database, db):
    fill(db, 8)
    settle(db)
    with database.connect(autocommit=False) as reader:
        reader.execute("select count(*) from tide.message")
        began = time.monotonic()
        found = retain(db, max_partitions=2)
        assert (found["truncated"], found["busy"], found["more"]) == (0, True, True)
        assert time.monotonic() - began < 8 * 0.05
    assert retain(db, max_partitions=20)["truncated"] == 8


def test_short_transactions_that_overlap_all_the_time_do_not_keep_empty_partitions_for_ever(database, db):
    """None of them is open for long, though one of them always is."""
    fill(db, 2)
    settle(db)
    assert retain(db)["truncated"] == 2
    stop, taken = threading.Event(), threading.Semaphore(0)

    def publishing():
        with database.connect() as publisher:
            while not stop.is_set():
                publisher.execute("begin")
                publish(publisher)
                publisher.execute("select pg_sleep(0.02)")  # what else the application does in its transaction
                publisher.execute("commit")
                taken.release()

    with ThreadPoolExecutor(8) as pool:
        working = [pool.submit(publishing) for _ in range(8)]
        try:
            for _ in range(16):
                assert taken.acquire(timeout=10)
            assert any(retain(db)["dropped"] == 2 for _ in range(5)), "it gave way to each of them"
        finally:
            stop.set()
        for one in working:
            one.result()
