"""A database with stream tables of mode IMMEDIATE is dumped and restored: writers maintain them from then on."""

import pytest

from tests.sql.schema.test_dump import program
from tests.sql.streams.maintained import hand_over, maintain
from tests.sql.streams.streams import assert_equal, behind

STREAMS = {
    "sums": "select region, count(*) as orders, sum(amount) as amount from orders group by region",
    "named": "select o.order_id, c.name from orders o join customers c on c.customer_id = o.customer_id",
}


@pytest.mark.each_postgres
def test_a_restored_database_is_maintained_at_once(database, empty_database, tmp_path):
    with database.connect() as connection:
        connection.execute("""
            create table orders (gone int, order_id int primary key, region text, amount numeric, customer_id int);
            alter table orders drop column gone;
            create table customers (customer_id int primary key, name text);
            insert into customers values (1, 'ann'), (2, 'bob');
            insert into orders values (1, 'n', 10, 1), (2, 's', 20, 2), (3, 'n', 5, null)""")
        for name, query in STREAMS.items():
            maintain(connection, name, query)
        connection.execute("select tide.stream_outbox_enable('sums')")
        connection.execute("insert into orders values (4, 'e', 1, 1)")
    program(database, "pg_dump", "--format=custom", f"--file={tmp_path / 'dump'}", f"--dbname={database.name}")
    with empty_database.admin() as admin:
        # What is made there has other numbers.
        admin.execute("create table others (id int); drop table others; select lo_create(0)")
    program(empty_database, "pg_restore", f"--dbname={empty_database.name}", "--exit-on-error", str(tmp_path / "dump"))
    with empty_database.connect() as connection:
        for statement in (
            "insert into orders values (9, 'n', 12, 2), (10, 'w', 1, 1)",
            "update customers set name = 'cid' where customer_id = 2",
            "with gone as (delete from orders where order_id < 3) update customers set name = name || '!'",
            "truncate customers",
        ):
            connection.execute(statement)
            for name in STREAMS:
                assert_equal(connection, name)
        for name in STREAMS:
            assert behind(connection, name) == "the database is a copy"
            hand_over(connection, name)
            assert behind(connection, name) is None
        connection.execute("insert into orders values (20, 'n', 12, 2)")
        for name in STREAMS:
            assert_equal(connection, name)
        [(deleted,)] = connection.execute(
            "select m.payload -> 'deleted' from tide.message m order by id desc limit 1"
        ).fetchall()
        assert [row["region"] for row in deleted] == ["n"]
