"""What the tests of snapshots share."""

from tests.sql.streams.streams import Connection

SOURCES = """
    create table orders (order_id int primary key, region text, amount numeric);
    insert into orders values (1, 'north', 10), (2, 'south', 20), (3, 'north', 5), (4, null, 1);
"""
SUMS = "select region, count(*) as orders, sum(amount) as amount from orders group by region"
CHANGED = "its sources changed"
COMPUTED = "it has not been computed since it was created, resumed or restored"
REMOVED = "changes since then were removed"
ELSEWHERE = "the snapshot is of another database or stream table, or has no frontier"


def take(connection: Connection, target: str | None = "public.before", name: str = "sums") -> str:
    [(copy,)] = connection.execute("select tide.snapshot_stream_table(%s, %s)", [name, target]).fetchall()
    return str(copy)


def restore(connection: Connection, source: str = "public.before", name: str = "sums") -> str | None:
    """Why the next refresh computes everything."""
    [(why,)] = connection.execute("select tide.restore_from_snapshot(%s, %s)", [name, source]).fetchall()
    return why  # type: ignore[no-any-return]


def change(connection: Connection, amount: int = 100) -> None:
    connection.execute("update orders set amount = amount + %s where order_id = 1", [amount])


def clean(connection: Connection) -> None:
    connection.execute("select tide.stream_clean()")


def same(connection: Connection, one: str, other: str) -> bool:
    return not connection.execute(
        f"(table {one} except all table {other}) union all (table {other} except all table {one})"
    ).fetchall()
