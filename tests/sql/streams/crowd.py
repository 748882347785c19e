"""Writers of every kind, and queries over what they write: quick, slow, rolled back, prepared, REPEATABLE READ."""

import random
from collections.abc import Iterable
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

TABLES = """
create table orders (order_id int primary key, region text, customer_id int);
create table customers (customer_id int primary key, name text);
"""
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


def write(url: str, seed: int, transactions: Iterable[int] = range(TRANSACTIONS)) -> int:
    """One writer; how many of its transactions failed because another was faster."""
    chance = random.Random(seed)
    failed = 0
    with psycopg.connect(url, autocommit=True) as connection:
        for number in transactions:
            connection.isolation_level = chance.choice([None, psycopg.IsolationLevel.REPEATABLE_READ])
            try:
                if chance.random() < 0.1:
                    _in_two_phases(connection, chance, seed * 1_000_000 + number)
                    continue
                with connection.transaction(force_rollback=chance.random() < 0.2):
                    for _ in range(chance.randint(1, 4)):
                        with connection.transaction(force_rollback=chance.random() < 0.2):
                            _change(connection, chance, seed * 1_000_000 + number)
                        connection.execute("select pg_sleep(%s)", [chance.choice([0, 0, 0.002, 0.03])])
            except (
                psycopg.errors.SerializationFailure,
                psycopg.errors.DeadlockDetected,
                psycopg.errors.UniqueViolation,
            ):
                failed += 1  # nothing of it is there
    return failed


def _in_two_phases(connection: Connection, chance: random.Random, number: int) -> None:
    connection.execute("begin")
    try:
        _change(connection, chance, number)
        connection.execute(f"prepare transaction 'p{number}'")
    except psycopg.Error:
        connection.execute("rollback")
        raise
    connection.execute("select pg_sleep(%s)", [chance.choice([0, 0.01, 0.03])])
    connection.execute(f"{chance.choice(['commit', 'commit', 'rollback'])} prepared 'p{number}'")


def _change(connection: Connection, chance: random.Random, number: int) -> None:
    some, region, customer = chance.randint(0, 10), chance.choice("nsew"), chance.randint(1, 9)
    match chance.randint(0, 9):
        case 0 | 1 | 2:
            connection.execute(
                "insert into orders values (%s, %s, %s) on conflict (order_id) do update set region = excluded.region",
                [number if some < 9 else some, region, customer],
            )
        case 3 if some > 9:
            connection.execute(
                "insert into orders select %s + n, %s, n %% 9 from generate_series(1, 60) n on conflict do nothing",
                [some * 1000, region],
            )
        case 3:
            connection.execute("update orders set region = %s where order_id %% 7 = %s", [region, some % 7])
        case 4:
            connection.execute("delete from orders where order_id %% 11 = %s", [some])
        case 5:
            connection.execute("update orders set customer_id = %s where order_id %% 11 = %s", [customer, some])
        case 6:
            connection.execute(
                "update orders set order_id = -order_id where order_id %% 29 = %s and order_id > 0", [some]
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
