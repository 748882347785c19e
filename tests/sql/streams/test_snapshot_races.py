"""Snapshots are taken and restored while refreshes and maintenance run."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.sql.streams.snapshots import CHANGED, REMOVED, SOURCES, SUMS, change, clean, restore, same, take
from tests.sql.streams.streams import Connection, assert_equal, behind, create, refresh
from tests.waiting import wait_until


@pytest.fixture
def connection(database) -> Iterator[Connection]:
    with database.connect() as connection:
        connection.execute(SOURCES)
        create(connection, "sums", SUMS)
        refresh(connection, "sums")
        yield connection


def blocked(connection: Connection) -> bool:
    [(waiting,)] = connection.execute(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    ).fetchall()
    return bool(waiting)


def test_a_snapshot_waits_for_a_refresh_and_has_its_rows(connection, database):
    take(connection, "public.first")
    change(connection)
    with ThreadPoolExecutor(1) as pool, database.connect(autocommit=False) as worker, database.connect() as other:
        worker.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        worker.execute("select tide.stream_refresh('streams.public.sums')")
        taking = pool.submit(take, other)
        wait_until(lambda: blocked(connection), what="the snapshot waits")
        worker.commit()
        taking.result()
    assert same(connection, "sums", "before")
    assert not same(connection, "sums", "first")
    assert connection.execute("""
        select frontier::text in (select frontier from tide.list_snapshots() where snapshot_table = 'public.before')
          from tide.stream_state""").fetchone() == (True,)


def test_a_snapshot_that_would_show_older_rows_than_the_frontier_is_refused(connection, database):
    with database.connect(autocommit=False) as old:
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        old.execute("select 1 from orders")
        change(connection)
        refresh(connection, "sums")
        with pytest.raises(psycopg.errors.SerializationFailure):
            take(old)


def test_a_refresh_that_runs_while_it_is_restored_does_nothing(connection, database):
    take(connection)
    change(connection)
    refresh(connection, "sums")
    with database.connect(autocommit=False) as worker:
        worker.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        worker.execute("select 1 from orders")
        restore(connection)
        with pytest.raises(psycopg.errors.SerializationFailure):
            worker.execute("select tide.stream_refresh('streams.public.sums')")
    refresh(connection, "sums")
    assert_equal(connection, "sums")


def test_what_is_being_removed_is_waited_for(connection, database):
    take(connection)
    change(connection)
    refresh(connection, "sums")
    with ThreadPoolExecutor(1) as pool, database.connect(autocommit=False) as maintenance, database.connect() as other:
        maintenance.execute("select tide.stream_clean()")
        restoring = pool.submit(restore, other)
        wait_until(lambda: blocked(connection), what="the restore waits")
        maintenance.commit()
        assert restoring.result() == REMOVED


def test_nothing_is_removed_while_it_is_restored(connection, database):
    take(connection)
    change(connection)
    refresh(connection, "sums")
    with ThreadPoolExecutor(1) as pool, database.connect(autocommit=False) as restorer, database.connect() as other:
        assert restore(restorer) is None
        cleaning = pool.submit(clean, other)
        wait_until(lambda: blocked(connection), what="the removal waits")
        restorer.commit()
        cleaning.result()
    assert behind(connection, "sums") == CHANGED
    refresh(connection, "sums")
    assert_equal(connection, "sums")


def test_it_is_restored_in_read_committed_alone(connection, database):
    take(connection)
    with database.connect(autocommit=False) as old:
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with pytest.raises(psycopg.errors.InvalidTransactionState, match="READ COMMITTED"):
            restore(old)
