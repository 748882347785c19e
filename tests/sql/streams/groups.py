"""What the tests of groups of stream tables share."""

from collections.abc import Sequence

from psycopg import IsolationLevel

from tests.sql.streams.streams import Connection, assert_equal

ORDERS = "create table orders (order_id int primary key, region text, amount int)"


def members(connection: Connection, name: str) -> list[str]:
    """The pipelines that are refreshed with that of a stream table, in their order."""
    [(found,)] = connection.execute("select tide.stream_members(tide.find_stream(%s))", [name]).fetchall()
    return list(found)


def together(connection: Connection, name: str, judge: bool = True) -> dict[str, str]:
    """Refreshes a group as a worker does, each judged by its query under the same snapshot: what was done, by name."""
    pipelines = members(connection, name)
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    try:
        with connection.transaction():
            connection.execute("select tide.stream_together(%s)", [pipelines])
            actions = [
                connection.execute("select action from tide.stream_refresh(%s)", [each]).fetchall()[0][0]
                for each in pipelines
            ]
            connection.execute("set constraints all immediate")
            connection.execute("select tide.stream_together_end(%s)", [pipelines])
            names = [each.rpartition(".")[2] for each in pipelines]
            for each in names if judge else ():
                assert_equal(connection, each)
    finally:
        connection.isolation_level = None
    return dict(zip(names, actions, strict=True))


def groups(connection: Connection) -> list[Sequence[str]]:
    """The names of the members of each group, in the order of their refresh."""
    return [
        row[0]
        for row in connection.execute(
            "select array_agg(member_name) from tide.diamond_groups() group by group_id order by group_id"
        ).fetchall()
    ]
