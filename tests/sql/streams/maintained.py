"""Stream tables of mode IMMEDIATE, handed over to their writers as a worker does it."""

from tests.sql.streams.analysed import analyse_and_keep
from tests.sql.streams.streams import Connection, create, pipeline, refresh

TABLES = """
    create table orders (order_id int primary key, region text, amount numeric, customer_id int);
    create table customers (customer_id int primary key, name text);
    insert into customers values (1, 'ann'), (2, 'bob');
    insert into orders values (1, 'n', 10, 1), (2, 's', 20, 2), (3, 'n', 5, null);
"""
SUMS = "select region, count(*) as orders, sum(amount) as amount from orders group by region"
LARGE = "select order_id, amount from orders where amount > 10"
NAMED = "select o.order_id, c.name from orders o join customers c on c.customer_id = o.customer_id"
KINDS = {"sums": SUMS, "large": LARGE, "named": NAMED}
"""One for each lock that writers take: of groups, none, of the stream table."""


def maintain(connection: Connection, name: str, query: str, **options: object) -> None:
    create(connection, name, query, **{"refresh_mode": "IMMEDIATE", **options})
    hand_over(connection, name)


def hand_over(connection: Connection, name: str) -> None:
    """What the drains of a worker do until writers maintain it."""
    reason = analyse_and_keep(connection, name)
    assert reason is None, reason
    refresh(connection, name)
    row = connection.execute("select tide.stream_immediate_begin(%s)", [pipeline(connection, name)]).fetchone()
    assert row == (True,)
