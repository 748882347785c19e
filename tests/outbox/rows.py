"""Each kind of connection that an application may have, with the calls that its own library has for transactions.

`ROWS` is the table of `relay.database.callers`, for tests: a name, and a context that opens such a connection.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import asyncpg
import django
import psycopg
import psycopg2
import psycopg2.extras
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from tests.outbox import rows_sqlalchemy
from tests.outbox.callers import ROWS, Caller, Do, event_loop, row, sql_savepoint

__all__ = ["ROWS", "Caller", "django_database", "event_loop", "rows_sqlalchemy"]

# psycopg


@row("psycopg")
@row("psycopg, settings", row_factory=dict_row, cursor_factory=psycopg.RawCursor, prepare_threshold=0)
@row("psycopg, cursor", of=lambda connection: connection.cursor())
def _psycopg(url: str, of: Callable[[Any], Any] = lambda connection: connection, **options: Any) -> Iterator[Caller]:
    with psycopg.connect(url, **options) as connection:
        yield Caller(
            of(connection),
            connection.execute,
            connection.commit,
            connection.rollback,
            sql_savepoint(connection.execute),
        )


@row("psycopg, pipeline")
def _psycopg_pipeline(url: str) -> Iterator[Caller]:
    with psycopg.connect(url) as connection, connection.pipeline() as pipeline:

        def execute(statement: str) -> None:
            connection.execute(statement)
            pipeline.sync()

        yield Caller(connection, execute, connection.commit, connection.rollback, sql_savepoint(execute))


@row("psycopg, async")
@row("psycopg, async cursor", of=lambda connection: connection.cursor(row_factory=dict_row))
def _psycopg_async(url: str, of: Callable[[Any], Any] = lambda connection: connection) -> Iterator[Caller]:
    with event_loop() as run:
        connection = run(psycopg.AsyncConnection.connect(url))

        def execute(statement: str) -> None:
            run(connection.execute(statement))

        yield Caller(
            of(connection),
            execute,
            lambda: run(connection.commit()),
            lambda: run(connection.rollback()),
            sql_savepoint(execute),
            run,
        )
        run(connection.close())


# psycopg2


@row("psycopg2")
@row("psycopg2, cursor", of=lambda connection: connection.cursor())
@row("psycopg2, settings", connection_factory=psycopg2.extras.LoggingConnection, named=True)
def _psycopg2(
    url: str, of: Callable[[Any], Any] = lambda connection: connection, named: bool = False, **options: Any
) -> Iterator[Caller]:
    with closing(psycopg2.connect(url, **options)) as connection:
        if named:
            connection.initialize(io.StringIO())
        else:
            connection.cursor_factory = psycopg2.extras.RealDictCursor

        def execute(statement: str) -> None:
            with connection.cursor() as cursor:
                cursor.execute(statement)

        yield Caller(of(connection), execute, connection.commit, connection.rollback, sql_savepoint(execute))


# asyncpg


@row("asyncpg")
@row("asyncpg, codecs", with_codecs=True)
def _asyncpg(url: str, with_codecs: bool = False) -> Iterator[Caller]:
    with event_loop() as run:
        connection = run(asyncpg.connect(url))
        if with_codecs:
            codec = {"schema": "pg_catalog", "encoder": repr, "decoder": repr}
            run(connection.set_type_codec("jsonb", **codec))
        yield from _in_asyncpg(connection, run)
        run(connection.close())


@row("asyncpg, of a pool")
def _asyncpg_pool(url: str) -> Iterator[Caller]:
    with event_loop() as run:
        pool = run(_made(asyncpg.create_pool(url, min_size=1, max_size=1)))
        connection = run(_made(pool.acquire()))
        yield from _in_asyncpg(connection, run)
        run(pool.release(connection))
        run(pool.close())


async def _made(awaitable: Any) -> Any:
    return await awaitable


def _in_asyncpg(connection: Any, run: Any) -> Iterator[Caller]:
    def execute(statement: str) -> None:
        run(connection.execute(statement))

    def end(how: str) -> Do:
        return lambda: execute(f"{how}; begin")

    execute("begin")
    yield Caller(connection, execute, end("commit"), end("rollback"), sql_savepoint(execute), run)
    execute("rollback")


# Django


@row("Django connection", of=lambda connections: __import__("django.db").db.connection)
@row("Django connections[alias]", of=lambda connections: connections["default"])
@row("Django cursor", of=lambda connections: connections["default"].cursor())
@row("Django alias", of=lambda connections: "default")
def _django(url: str, of: Callable[[Any], Any]) -> Iterator[Caller]:
    with django_database(url) as connections:
        from django.db import transaction

        atomic = transaction.atomic()

        def end(undo: bool) -> None:
            transaction.set_rollback(undo)
            atomic.__exit__(None, None, None)
            atomic.__enter__()

        def execute(statement: str) -> None:
            with connections["default"].cursor() as cursor:
                cursor.execute(statement)

        def savepoint() -> Do:
            name = transaction.savepoint()
            return lambda: transaction.savepoint_rollback(name)

        atomic.__enter__()
        yield Caller(of(connections), execute, lambda: end(False), lambda: end(True), savepoint)
        transaction.set_rollback(True)
        atomic.__exit__(None, None, None)


@contextmanager
def django_database(url: str) -> Iterator[Any]:
    """Django, whose database `default` is this one; `connections`."""
    parts = conninfo_to_dict(url)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    default = {"ENGINE": "django.db.backends.postgresql"} | {ours: parts[theirs] for ours, theirs in names.items()}
    if not settings.configured:
        settings.configure(DATABASES={"default": default})
        django.setup()
    from django.db import connections

    connections["default"] = connections.create_connection("default")
    connections["default"].settings_dict |= default
    yield connections
    connections["default"].close()
