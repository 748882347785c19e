"""One refresh of a stream table: a REPEATABLE READ transaction, under a lease that is renewed meanwhile.

The frontier is what makes a refresh right, not its lease: of two at once the second fails before it writes. The lease
saves double work.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import psycopg
import structlog

from relay.database.connection import Connection, database_errors
from relay.drains.fence import FencedSession
from relay.errors import Fenced, NotConnected
from relay.sql import query

log = structlog.get_logger(__name__)

LONGEST_REFRESH_SECONDS = 3600.0


class Refreshed(NamedTuple):
    """What a refresh did."""

    action: str
    """`NO_DATA`, `DIFFERENTIAL` or `FULL`."""
    rows_inserted: int | None
    rows_updated: int | None
    rows_deleted: int | None
    missing: list[int] | None
    """Sources that changed together, if it has not been analysed yet what they change."""
    strategy: str | None
    """How it found what differs: `linear`, `keyed`, `two states`, `groups`, `full`; None if it had nothing to do."""
    reason: str | None
    """Why there was something to do; of a `FULL` one, why it computed the whole query."""


class Overtaken(Exception):
    """Another refresh of the same stream table was there first."""


def refresh(session: FencedSession) -> Refreshed:
    """Refreshes once. Raises Overtaken, NotConnected; and psycopg.Error for what PostgreSQL says against the query."""
    connection = session.connection
    before = connection.isolation_level
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    try:
        with connection.transaction():
            connection.execute(query("stream_limits"), {"seconds": LONGEST_REFRESH_SECONDS})
            row = session.check(session.execute("stream_refresh"))
    except psycopg.errors.SerializationFailure as error:
        raise Overtaken from error
    finally:
        if not connection.closed:
            connection.isolation_level = before
    return Refreshed(*row)


def hand_over(session: FencedSession) -> bool:
    """Has writers maintain a stream table of mode IMMEDIATE; false if one of them was in the way, which is no failure.

    Raises Fenced, NotConnected; and psycopg.Error for what PostgreSQL says against it.
    """
    with session.connection.transaction():
        session.connection.execute(query("stream_limits"), {"seconds": LONGEST_REFRESH_SECONDS})
        return bool(session.check(session.execute("stream_immediate_begin"))[0])


def record_failure(session: FencedSession, error: str) -> bool:
    """Writes down that a refresh failed; whether the stream table is suspended now. Raises NotConnected."""
    with database_errors():
        return bool(session.check(session.execute("stream_failed", error=error))[0])


@contextmanager
def kept(session: FencedSession, other: Callable[[], AbstractContextManager[Connection]]) -> Iterator[None]:
    """Renews the lease from another session while the body waits for its statement."""
    done = threading.Event()
    keeper = threading.Thread(target=_keep, args=(session, other, done), name="lease-keeper", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()


def _keep(
    session: FencedSession, other: Callable[[], AbstractContextManager[Connection]], done: threading.Event
) -> None:
    while not done.wait(session.lease.seconds / 3):
        sent_at = time.monotonic()
        try:
            with database_errors(), other() as connection:
                session.check(connection.execute(query("lease_renew"), session.parameters()))
        except NotConnected as error:
            log.warning("lease not renewed yet", reason=str(error))
        except Fenced:
            return  # the refresh goes on: if another overtakes it, it fails by itself
        else:
            session.lease.renewed(sent_at)
