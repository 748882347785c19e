"""How a statement is executed on each kind of connection, and its rows as tuples.

The connections are of libraries that may be missing, so they have no type here. Each function leaves the state of its
connection as it is: row factories, kinds of cursors, execution options, pipelines, isolation.
"""

import sys
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from relay.database.callers.statement import Statement

Rows = list[tuple[Any, ...]]

# A cursor of the server, which the application may have asked for, would run the function at the first fetch only.
_OPTIONS = {"stream_results": False, "yield_per": None}


def psycopg_connection(connection: Any, statement: Statement) -> Rows:
    # Not connection.cursor(): its class may have other placeholders, or be kept by the server. Closing frees nothing.
    cursor = psycopg.Cursor(connection, row_factory=tuple_row)
    return cursor.execute(statement.texts.encoded, statement.values).fetchall()


def psycopg_cursor(cursor: Any, statement: Statement) -> Rows:
    return psycopg_connection(cursor.connection, statement)


async def psycopg_async_connection(connection: Any, statement: Statement) -> Rows:
    cursor = psycopg.AsyncCursor(connection, row_factory=tuple_row)
    await cursor.execute(statement.texts.encoded, statement.values)
    return await cursor.fetchall()


async def psycopg_async_cursor(cursor: Any, statement: Statement) -> Rows:
    return await psycopg_async_connection(cursor.connection, statement)


def psycopg2_connection(connection: Any, statement: Statement) -> Rows:
    plain: Any = sys.modules["psycopg2.extensions"].cursor
    with connection.cursor(cursor_factory=plain) as cursor:
        cursor.execute(statement.texts.formatted, statement.values)
        rows: Rows = cursor.fetchall()
    return rows


def psycopg2_cursor(cursor: Any, statement: Statement) -> Rows:
    return psycopg2_connection(cursor.connection, statement)


async def asyncpg_connection(connection: Any, statement: Statement) -> Rows:
    return [tuple(row) for row in await connection.fetch(statement.texts.numbered, *statement.values)]


def sqlalchemy_connection(connection: Any, statement: Statement) -> Rows:
    result = connection.exec_driver_sql(_for_dialect(connection.dialect, statement), statement.values, _OPTIONS)
    return [tuple(row) for row in result]


def sqlalchemy_session(session: Any, statement: Statement) -> Rows:
    return sqlalchemy_connection(session.connection(), statement)


async def sqlalchemy_async_connection(connection: Any, statement: Statement) -> Rows:
    text = _for_dialect(connection.dialect, statement)
    result = await connection.exec_driver_sql(text, statement.values, _OPTIONS)
    return [tuple(row) for row in result]


async def sqlalchemy_async_session(session: Any, statement: Statement) -> Rows:
    return await sqlalchemy_async_connection(await session.connection(), statement)


def django_connection(connection: Any, statement: Statement) -> Rows:
    """Through Django's own cursor, so that what watches or limits the statements of a test sees it."""
    if connection.vendor != "postgresql":
        raise TypeError(f"the database {connection.alias!r} of Django is {connection.vendor}, and not PostgreSQL")
    with connection.cursor() as cursor:
        return django_cursor(cursor, statement)


def django_cursor(cursor: Any, statement: Statement) -> Rows:
    cursor.execute(statement.texts.formatted, statement.values)
    return [tuple(row) for row in cursor.fetchall()]


def django_alias(alias: str, statement: Statement) -> Rows:
    connections: Any = sys.modules["django.db"].connections
    if alias not in connections:
        raise TypeError(f"Django has no database {alias!r}. DATABASES has: {', '.join(sorted(connections))}")
    return django_connection(connections[alias], statement)


def _for_dialect(dialect: Any, statement: Statement) -> str:
    if dialect.name != "postgresql":
        raise TypeError(f"the connection of SQLAlchemy is of {dialect.name}, and not of PostgreSQL")
    # exec_driver_sql takes the placeholders of the driver: $1 of asyncpg, %s of all others.
    return statement.texts.numbered if dialect.paramstyle == "numeric_dollar" else statement.texts.formatted
