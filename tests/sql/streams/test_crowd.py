"""Refreshes between writers of every kind: quick, slow, rolled back, with savepoints, REPEATABLE READ."""

import random
from concurrent.futures import ThreadPoolExecutor

import psycopg

from tests.sql.streams.streams import assert_equal, behind, create, refresh

WRITERS, TRANSACTIONS = 4, 60


def write(url, seed):
    chance = random.Random(seed)
    with psycopg.connect(url, autocommit=True) as connection:
        for number in range(TRANSACTIONS):
            isolation = chance.choice([None, psycopg.IsolationLevel.REPEATABLE_READ])
            connection.isolation_level = isolation
            try:
                with connection.transaction(force_rollback=chance.random() < 0.2):
                    for _ in range(chance.randint(1, 4)):
                        with connection.transaction(force_rollback=chance.random() < 0.2):
                            _change(connection, chance, seed * 1000 + number)
                        connection.execute("select pg_sleep(%s)", [chance.choice([0, 0, 0.002, 0.03])])
            except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
                pass  # another writer was faster: nothing of this one is there


def _change(connection, chance, number):
    match chance.randint(0, 3):
        case 0 | 1:
            connection.execute("insert into orders values (%s, %s)", [number, chance.choice("nsew")])
        case 2:
            connection.execute(
                "update orders set region = %s where order_id %% 7 = %s", [chance.choice("nsew"), chance.randint(0, 6)]
            )
        case 3:
            connection.execute("delete from orders where order_id %% 11 = %s", [chance.randint(0, 10)])


def test_no_change_is_missed_whoever_commits_when(database):
    with database.connect() as connection, ThreadPoolExecutor(WRITERS) as writers:
        connection.execute("create table orders (order_id int, region text)")
        create(connection, "sums", "select region, count(*) as orders from orders group by region")
        create(connection, "total", "select sum(orders) as orders from sums")
        refreshes = 0
        writing = [writers.submit(write, database.url, seed) for seed in range(WRITERS)]
        while not all(done.done() for done in writing):
            for name in ("sums", "total"):
                if behind(connection, name):
                    refresh(connection, name)
                    refreshes += 1
            connection.execute("select tide.stream_clean()")
        for done in writing:
            done.result()
        # What is not behind has to be equal, not only what was just refreshed.
        for name in ("sums", "total"):
            if behind(connection, name):
                refresh(connection, name)
            assert_equal(connection, name)
        assert refreshes > 10
