"""Sends the read of an outbox: its horizon, and then the messages up to it, in two statements of one transaction.

The rule that binds them: the horizon is read before the messages, in a statement of its own. One statement would have
one snapshot, older than the marks that it reads.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import psycopg

from relay.database.connection import Connection
from relay.models import MAX_BATCH_BYTES, Message
from relay.sql import query

AT_ONCE = 1000
"""At least so many messages are read at once, if there are as many: PostgreSQL plans each read for its ids, which takes
as long as reading some hundred."""

# A row as it comes: a call of Python for each would cost more than to read it.
_MESSAGES: Any = lambda _cursor: partial(tuple.__new__, Message)  # noqa: E731


class Place(NamedTuple):
    """Where to read."""

    outbox_id: int
    after: int
    """The id after which to begin."""
    batch_size: int

    @property
    def max_messages(self) -> int:
        return max(AT_ONCE, self.batch_size)


class MessageRead(NamedTuple):
    """What was asked; `result` takes the answer."""

    place: Place
    horizon: psycopg.Cursor[Any] | None
    rows: psycopg.Cursor[Message]


def ask_messages(
    connection: Connection, place: Place, horizon: int | None = None, lane: Mapping[str, Any] | None = None
) -> MessageRead:
    """Executes the statements, in the caller's transaction of READ COMMITTED; one is enough with a known `horizon`.

    `lane` is what `outbox_read_lane` takes beside, if not all messages of the outbox are ours.
    """
    read = None
    if horizon is None:
        read = connection.execute(query("outbox_horizon"), {"outbox_id": place.outbox_id})
    rows = connection.cursor(row_factory=_MESSAGES).execute(
        query("outbox_read_lane" if lane else "outbox_read"),
        {
            "outbox_id": place.outbox_id,
            "after": place.after,
            "horizon": horizon,
            "max_messages": place.max_messages,
            "max_bytes": MAX_BATCH_BYTES,
            **(lane or {}),
        },
        # In the horizon's transaction it is planned each time. Alone it is, unless it is prepared.
        prepare=False if read is None else None,
        binary=True,
    )
    return MessageRead(place, read, rows)
