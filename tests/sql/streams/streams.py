"""What the tests of stream tables share."""

from typing import Any

import psycopg
from psycopg import IsolationLevel, sql

Connection = psycopg.Connection[Any]


def create(connection: Connection, name: str, query: str, **options: object) -> str:
    """A stream table; the name of its pipeline."""
    named = "".join(f", {option} => %s" for option in options)
    connection.execute(f"select tide.create_stream_table(%s, %s{named})", [name, query, *options.values()])  # type: ignore[arg-type]
    return pipeline(connection, name)


def pipeline(connection: Connection, name: str) -> str:
    row = connection.execute("select (tide.find_stream(%s)).pipeline", [name]).fetchone()
    assert row
    return str(row[0])


def behind(connection: Connection, name: str) -> str | None:
    """Why it has to be refreshed; None if it has not."""
    row = connection.execute("select behind from tide.stream_tables() where name = 'public.' || %s", [name]).fetchone()
    assert row
    return row[0]  # type: ignore[no-any-return]


def refresh(connection: Connection, name: str, *, locked: str = "") -> tuple[str, int | None, int | None]:
    """One refresh as a worker makes it, judged by the query under the same snapshot: action, rows inserted, deleted.

    `locked` are tables that are not truncated meanwhile: a snapshot from before would see none of their rows.
    """
    line = pipeline(connection, name)
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    try:
        with connection.transaction():
            if locked:
                connection.execute(f"lock table {locked} in access share mode")  # type: ignore[arg-type]
            row = connection.execute(
                "select action, rows_inserted, rows_deleted from tide.stream_refresh(%s)", [line]
            ).fetchone()
            assert_equal(connection, name)
    finally:
        connection.isolation_level = None
    assert row
    return row


def assert_equal(connection: Connection, name: str) -> None:
    """Row by row, as multisets, in both directions."""
    [(number,)] = connection.execute("select (tide.find_stream(%s)).stream_id", [name]).fetchall()
    table, view = sql.Identifier(name), sql.Identifier("tide_stream", f"q_{number}")
    for one, other in ((table, view), (view, table)):
        found = connection.execute(
            sql.SQL("select * from {} except all select * from {}").format(one, other)
        ).fetchall()
        assert found == [], f"{name}: {one.as_string(None)} has rows that {other.as_string(None)} has not: {found[:5]}"
