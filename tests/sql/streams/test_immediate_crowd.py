"""Writers of every kind maintain stream tables at once: rolled back, prepared, with savepoints, of every isolation."""

import random
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import IsolationLevel, sql

from tests.sql.streams.maintained import maintain
from tests.sql.streams.streams import assert_equal

WRITERS, TRANSACTIONS = 4, 50
TABLES = """
    create table customers (customer_id int primary key, name text);
    create table orders (order_id int primary key, region text, amount numeric, customer_id int);
    create table lines (line_id int primary key, order_id int references orders on delete cascade, amount numeric);
"""
STREAMS = {
    "sums": "select region, count(*) as orders, sum(amount) as amount from orders group by region",
    "large": "select order_id, region from orders where amount > 3",
    "amounts": "select amount from orders",
    "everyone": "select c.customer_id, c.name, count(o.order_id) as orders from customers c"
    " left join orders o on o.customer_id = c.customer_id group by c.customer_id, c.name",
    "ordered": "select o.order_id, o.region, sum(l.amount) as amount from orders o"
    " join lines l on l.order_id = o.order_id group by o.order_id, o.region",
    "above": "select orders, count(*) as regions from sums group by orders",
}
AGAIN = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.UniqueViolation,
    psycopg.errors.ForeignKeyViolation,
)


def write(url, seed):
    """Its transactions, and how many had to be run again."""
    chance, again = random.Random(seed), 0
    with psycopg.connect(url, autocommit=True) as connection:
        for number in range(TRANSACTIONS):
            isolation = chance.choice([None, IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE, None])
            connection.isolation_level = isolation
            for _ in range(20):
                try:
                    _transaction(connection, chance, seed * 1000 + number)
                except AGAIN as error:
                    again += isolation is not None and isinstance(error, psycopg.errors.SerializationFailure)
                else:
                    break
    return again


def _transaction(connection, chance, number):
    if chance.random() < 0.1:
        _in_two_phases(connection, chance, number)
        return
    with connection.transaction(force_rollback=chance.random() < 0.15):
        for _ in range(chance.randint(1, 4)):
            with connection.transaction(force_rollback=chance.random() < 0.2):
                _change(connection, chance, number)
            if chance.random() < 0.05:
                # Within a transaction that writes, all is equal too.
                for name in STREAMS:
                    assert_equal(connection, name)
            connection.execute("select pg_sleep(%s)", [chance.choice([0, 0, 0.001, 0.01])])


def _in_two_phases(connection, chance, number):
    connection.execute("begin")
    try:
        _change(connection, chance, number)
        connection.execute(f"prepare transaction 'p{number}'")
    except psycopg.Error:
        connection.execute("rollback")
        raise
    connection.execute(f"{chance.choice(['commit', 'commit', 'rollback'])} prepared 'p{number}'")


def _change(connection, chance, number):
    some, region, customer = chance.randint(0, 12), chance.choice("nsew"), chance.randint(1, 6)
    match chance.randint(0, 9):
        case 0 | 1 | 2:
            connection.execute(
                "insert into orders values (%s, %s, %s, %s)"
                " on conflict (order_id) do update set region = excluded.region",
                [number if some < 9 else some, region, some, customer],
            )
        case 3:
            connection.execute("update orders set region = %s where order_id %% 7 = %s", [region, some % 7])
        case 4:
            connection.execute("delete from orders where order_id %% 13 = %s", [some])
        case 5:
            connection.execute(
                "update orders set customer_id = %s, amount = amount + 1 where order_id %% 13 = %s", [customer, some]
            )
        case 6:
            with connection.cursor().copy("copy orders from stdin") as copy:
                for place in range(3):
                    copy.write_row([100_000 + number * 100 + chance.randint(0, 99), region, place, customer])
        case 7:
            connection.execute(
                "insert into customers values (%s, %s) on conflict (customer_id) do update set name = excluded.name",
                [customer, region],
            )
        case 8:
            connection.execute(
                "insert into lines select 10 * order_id + %s, order_id, %s from orders where order_id %% 13 = %s"
                " on conflict (line_id) do update set amount = lines.amount + 1",
                [some % 10, some, some],
            )
        case 9:
            connection.execute(
                "with gone as (delete from customers where customer_id = %s returning customer_id)"
                " update orders set customer_id = 1 where customer_id in (select customer_id from gone)",
                [customer],
            )


@pytest.mark.each_postgres
def test_no_reader_ever_sees_a_wrong_row(database):
    with database.admin() as admin:
        admin.execute(
            sql.SQL("alter database {} set deadlock_timeout = '20ms'").format(sql.Identifier(admin.info.dbname))
        )
    with database.connect() as connection, ThreadPoolExecutor(WRITERS) as writers:
        connection.execute(TABLES)
        for name, query in STREAMS.items():
            maintain(connection, name, query)
        writing = [writers.submit(write, database.url, seed) for seed in range(WRITERS)]
        while not all(done.done() for done in writing):
            with connection.transaction():
                connection.execute("set transaction isolation level repeatable read")
                for name in STREAMS:
                    assert_equal(connection, name)
        again = sum(done.result() for done in writing)
        for name in STREAMS:
            assert_equal(connection, name)
        assert again > 0  # some had a snapshot that did not show the last maintenance
        [(rows,)] = connection.execute("select count(*) from orders").fetchall()
        assert rows > 0
