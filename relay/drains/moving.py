"""Moving messages into an inbox of the same database: PostgreSQL reads, writes and settles in one statement.

The rules of `relay/drains/outbox.py` bind this module too: the horizon is read before the messages, in a statement of
its own, and a group that found nothing commits its armed bell before it looks again. The fence is locked first, so an
abandoned drain moves nothing (`inbox_move` in `relay/sql/queries/drains.sql`).
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg

from relay.database.connection import database_errors
from relay.drains.fence import FencedSession
from relay.drains.outbox import Bell
from relay.models import MAX_BATCH_BYTES
from relay.sql import query


@dataclass(frozen=True, slots=True)
class Moved:
    """A batch that was moved and settled; if it has no messages, there is none up to the horizon."""

    messages: int
    offset_id: int
    """Everything up to here is settled."""
    first_at: str | None
    """When its first message was published, as RFC 3339."""
    is_last: bool
    """Whether nothing is left below the horizon."""
    open_publishers: int
    """Transactions that may still add messages above the horizon; not counted while that is far ahead."""


class Mover:
    """Moves the messages of one consumer group, for a drain, into an inbox. One thread at a time."""

    def __init__(self, session: FencedSession, inbox: str, max_messages: int) -> None:
        self._session = session
        self._connection = session.connection
        self._limits = {"inbox": inbox, "max_messages": max_messages, "max_bytes": MAX_BATCH_BYTES}
        self._max_messages = max_messages
        self._horizon = 0

    def move(self, after: int, bell: Bell | None = None) -> Moved | None:
        """Commits whether publishers ring, if that is given, and moves what follows an id: one round trip.

        None if PostgreSQL refuses a message, or the inbox: nothing was moved then. Raises Fenced when the drain was
        abandoned, NotConnected when PostgreSQL is lost.
        """
        with database_errors():
            try:
                return self._move(after, bell)
            except psycopg.Error:
                if self._connection.closed:
                    raise
                self._connection.rollback()
                return None

    def _move(self, after: int, bell: Bell | None) -> Moved:
        sent_at = time.monotonic()
        is_known = bell != "arm" and after + self._max_messages <= self._horizon
        parameters = {"after": after, "horizon": self._horizon if is_known else None, **self._limits}
        with ExitStack() as stack:
            if bell or not is_known:
                stack.enter_context(self._connection.pipeline())
            if bell:
                self._connection.execute(query("begin"))
                self._session.execute(f"bell_{bell}")
                self._connection.execute("commit")
            if is_known:
                horizon, fence = None, self._session.execute("inbox_move", **parameters)
            else:
                self._connection.execute(query("begin"))
                horizon = self._session.execute("outbox_horizon")
                fence = self._session.execute("inbox_move", **parameters)
                self._connection.execute("commit")
        _, self._horizon, messages, offset_id, first_at = self._session.check_revision(fence)
        open_publishers = horizon.fetchall()[0][1] if horizon else 0
        if messages is None:  # nothing lies below the horizon: the lease was not renewed
            return Moved(0, after, None, True, open_publishers)
        self._session.lease.renewed(sent_at)
        return Moved(messages, offset_id, first_at, offset_id >= self._horizon, open_publishers)
