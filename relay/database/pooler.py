"""Connection poolers, such as PgBouncer: whether one stands between, and whether sessions are shared behind it.

In transaction mode each transaction runs in whatever session is free, so nothing may be kept in one: no settings, no
prepared statements, no advisory locks, no LISTEN. There is no error that would say so.
"""

import select
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg
from psycopg.pq import ExecStatus

Connection = psycopg.Connection[tuple[Any, ...]]

# A pool hands out the session that was given back last, so the first look tells, as a rule; the others are for a busy
# one.
LOOKS = 5


def is_between(connection: Connection) -> bool:
    """Whether the server's process is another than the one that the start of the connection told."""
    return connection.info.backend_pid != server_process(connection)


def server_process(connection: Connection) -> int:
    """The process of the server that answers."""
    row = connection.execute("select pg_catalog.pg_backend_pid()", prepare=False).fetchone()
    assert row
    return int(row[0])


def shares_sessions(connection: Connection, open_another: Callable[[], Connection], patience_seconds: float) -> bool:
    """Whether two connections that are open at the same time are given the same session.

    True is certain. False may be wrong in a pool that others keep busy. A pool of whole sessions that has none left
    has the second connection wait, which ends after `patience_seconds` and means False.
    """
    ours = server_process(connection)
    try:
        another = open_another()
    except psycopg.OperationalError:
        return False
    with closing(another):
        for _ in range(LOOKS):
            theirs = _asked(another, patience_seconds)
            if theirs is None:
                return False
            if theirs == ours or server_process(connection) != ours:
                return True
    return False


def _asked(connection: Connection, patience_seconds: float) -> int | None:
    """The process of the server; None if it does not answer in time."""
    pgconn, deadline = connection.pgconn, time.monotonic() + patience_seconds
    pgconn.send_query(b"select pg_catalog.pg_backend_pid()")
    while pgconn.is_busy():
        ready, _, _ = select.select([pgconn.socket], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        pgconn.consume_input()
    result = pgconn.get_result()
    value = result.get_value(0, 0) if result and result.status == ExecStatus.TUPLES_OK else None
    while pgconn.get_result():
        pass  # the end of the answer
    return int(value) if value else None
