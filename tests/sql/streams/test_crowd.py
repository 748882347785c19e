"""Refreshes between writers of every kind: quick, slow, rolled back, prepared, with savepoints, REPEATABLE READ."""

import random
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.sql.streams.analysed import analyse_and_keep
from tests.sql.streams.streams import assert_equal, behind, create, refresh

WRITERS, TRANSACTIONS = 4, 200
STREAMS = {
    "sums": "select region, count(*) as orders, sum(order_id) as ids from orders group by region",
    "total": "select sum(orders) as orders from sums",
    "joined": "select o.order_id, c.name from orders o join customers c on c.customer_id = o.customer_id",
    "everyone": (
        "select c.customer_id, c.name, o.order_id from customers c left join orders o on o.customer_id = c.customer_id"
    ),
    "first": "select distinct on (region) region, order_id from orders order by region, order_id",
    "names": "select name from customers",
    "sizes": (
        "select t.orders, count(*) as regions from (select region, count(*) as orders from orders group by region) t"
        " group by t.orders"
    ),
    "busiest": (
        "select customer_id, count(*) as orders from orders group by customer_id"
        " order by orders desc, customer_id limit 3"
    ),
    "latest": "select order_id, region from orders where order_id >= (select max(order_id) - 50 from orders)",
    "places": "select region from orders union select name from customers",
    "either": "select o.order_id, c.name from orders o full join customers c on c.customer_id = o.customer_id",
    "strangers": "select customer_id from orders except all select customer_id from customers",
    "unseen": "select customer_id from customers where customer_id not in (select customer_id from orders)",
    "newest": (
        "select c.customer_id, l.order_id from customers c left join lateral (select o.order_id from orders o"
        " where o.customer_id = c.customer_id order by o.order_id desc limit 1) l on true"
    ),
    "most": "select bool_or(order_id > 5) as most from orders",
}


def write(url, seed):
    chance = random.Random(seed)
    with psycopg.connect(url, autocommit=True) as connection:
        for number in range(TRANSACTIONS):
            connection.isolation_level = chance.choice([None, psycopg.IsolationLevel.REPEATABLE_READ])
            try:
                if chance.random() < 0.1:
                    _in_two_phases(connection, chance, seed * 1000 + number)
                    continue
                with connection.transaction(force_rollback=chance.random() < 0.2):
                    for _ in range(chance.randint(1, 4)):
                        with connection.transaction(force_rollback=chance.random() < 0.2):
                            _change(connection, chance, seed * 1000 + number)
                        connection.execute("select pg_sleep(%s)", [chance.choice([0, 0, 0.002, 0.03])])
            except (
                psycopg.errors.SerializationFailure,
                psycopg.errors.DeadlockDetected,
                psycopg.errors.UniqueViolation,
            ):
                pass  # another writer was faster: nothing of this one is there


def _in_two_phases(connection, chance, number):
    connection.execute("begin")
    try:
        _change(connection, chance, number)
        connection.execute(f"prepare transaction 'p{number}'")
    except psycopg.Error:
        connection.execute("rollback")
        raise
    connection.execute("select pg_sleep(%s)", [chance.choice([0, 0.01, 0.03])])
    connection.execute(f"{chance.choice(['commit', 'commit', 'rollback'])} prepared 'p{number}'")


def _change(connection, chance, number):
    some, region, customer = chance.randint(0, 10), chance.choice("nsew"), chance.randint(1, 9)
    match chance.randint(0, 9):
        case 0 | 1 | 2:
            connection.execute(
                "insert into orders values (%s, %s, %s) on conflict (order_id) do update set region = excluded.region",
                [number if some < 9 else some, region, customer],
            )
        case 3:
            connection.execute("update orders set region = %s where order_id %% 7 = %s", [region, some % 7])
        case 4:
            connection.execute("delete from orders where order_id %% 11 = %s", [some])
        case 5:
            connection.execute("update orders set customer_id = %s where order_id %% 11 = %s", [customer, some])
        case 6:
            connection.execute(
                "update orders set order_id = order_id + 100000 where order_id %% 29 = %s and order_id < 100000", [some]
            )
        case 7 | 8:
            connection.execute(
                "insert into customers values (%s, %s) on conflict (customer_id) do update set name = excluded.name",
                [customer, region],
            )
        case 9 if some < 1 and number % 10 == 0:
            connection.execute("truncate customers")
        case 9:
            connection.execute("delete from customers where customer_id = %s", [customer])


@pytest.mark.timeout(400)  # each of the stream tables is refreshed as often as it can be
def test_no_change_is_missed_whoever_commits_when(database):
    with database.connect() as connection, ThreadPoolExecutor(WRITERS) as writers:
        connection.execute("""
            create table orders (order_id int primary key, region text, customer_id int);
            create table customers (customer_id int primary key, name text);
        """)
        for name, query in STREAMS.items():
            create(connection, name, query, refresh_mode="DIFFERENTIAL")
            analyse_and_keep(connection, name)
        writing = [writers.submit(write, database.url, seed) for seed in range(WRITERS)]
        while not all(done.done() for done in writing):
            for name in STREAMS:
                if behind(connection, name):
                    refresh(connection, name, locked="orders, customers")
            connection.execute("select tide.stream_clean()")
        for done in writing:
            done.result()
        # What is not behind has to be equal, not only what was just refreshed.
        for name in STREAMS:
            if behind(connection, name):
                refresh(connection, name)
            assert_equal(connection, name)
        counts = dict(
            connection.execute("""
            select line.name, count(*) from tide.stream_history join tide.stream line using (stream_id)
             where action = 'DIFFERENTIAL' group by 1
        """).fetchall()
        )
        followed = {name for name in STREAMS if counts.get(f"public.{name}", 0) > 2}
        assert followed == STREAMS.keys() - {"most"}
