"""One refresh of a stream table, or of a group: a REPEATABLE READ transaction, under a lease that is renewed meanwhile.

The frontier is what makes a refresh right, not its lease: of two at once the second fails before it writes. The lease
saves double work.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import NamedTuple

import psycopg
import structlog

from relay.database.connection import Connection, database_errors
from relay.drains.fence import Cursor, FencedSession
from relay.errors import Fenced, NotConnected
from relay.reasons import reason_of
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
    seconds: float = 0.0


class Overtaken(Exception):
    """Another refresh of the same stream table was there first, or its pipeline was changed."""


class RefreshFailed(Exception):
    """PostgreSQL refused the query of one stream table, which is the cause: nothing of the group was written."""

    def __init__(self, pipeline: str) -> None:
        super().__init__(pipeline)
        self.pipeline = pipeline
        """Of the stream table."""


def refresh(session: FencedSession, together: Sequence[str] = ()) -> dict[str, Refreshed]:
    """Refreshes once, and says what it did, by pipeline.

    `together`: the pipelines of the stream tables of a group, its own too, in the order in which they are refreshed.
    Raises Overtaken, RefreshFailed, Fenced, NotConnected.
    """
    pipelines = together or (session.lease.drain.pipeline,)
    pipeline = pipelines[0]
    done: dict[str, Refreshed] = {}
    try:
        with _one_snapshot(session.connection):
            begun = _send_begin(session, together)
            for pipeline in pipelines:
                began_at = time.monotonic()
                refreshed = session.of_stream(pipeline).execute("stream_refresh", revision=session.start.revision)
                if not done:
                    _check_begun(session, begun)
                done[pipeline] = Refreshed._make((*session.check(refreshed), time.monotonic() - began_at))
            if together:
                session.execute("stream_deferred")
                session.check(session.execute("stream_end", together=list(together)))
    except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected) as error:
        raise Overtaken from error
    except psycopg.Error as error:
        if session.connection.closed:
            raise NotConnected(f"PostgreSQL: {reason_of(error)}") from error
        raise RefreshFailed(pipeline) from error
    return done


@contextmanager
def _one_snapshot(connection: Connection) -> Iterator[None]:
    """A REPEATABLE READ transaction, with a round trip where an answer is needed, and no others: a burst of refreshes
    waits for them more than it works.
    """
    try:
        with connection.pipeline():
            connection.execute(query("begin_one_snapshot"))
            yield
            connection.execute("commit")
    except BaseException:
        with suppress(psycopg.Error):  # lost, and the caller sees it
            connection.rollback()
        raise


def _send_begin(session: FencedSession, together: Sequence[str]) -> Cursor:
    limits = {"seconds": LONGEST_REFRESH_SECONDS, "revision": session.start.revision, "together": list(together)}
    return session.execute("stream_begin", **limits)


def _check_begun(session: FencedSession, begun: Cursor) -> None:
    if not session.check(begun)[0]:
        raise Overtaken


def hand_over(session: FencedSession) -> bool:
    """Has writers maintain a stream table of mode IMMEDIATE; false if one of them was in the way, which is no failure.

    Raises Overtaken, Fenced; and psycopg.Error for what PostgreSQL says against it.
    """
    with session.connection.transaction():
        _check_begun(session, _send_begin(session, ()))
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
