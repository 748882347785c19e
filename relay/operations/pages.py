"""Statements that ask something of many outboxes, a page of them at a time.

A statement that reads the last id of an outbox, or its messages, keeps a lock on a sequence and on tables until it
ends. Those of all outboxes would not fit into the lock table of the server: it has room for a few thousand locks of
all sessions together.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from relay.operations.base import Connection, rows

PAGE_OUTBOXES = 100


def pages(
    connection: Connection, statement: str, /, outbox_ids: Sequence[int] | None = None, **parameters: Any
) -> Iterator[dict[str, Any]]:
    """The rows of a named statement over `outbox_ids`: over these, or over all in the order of their names.

    Each page is a statement, and outside of a transaction also a snapshot, of its own. Raises RelayError.
    """
    if outbox_ids is None:
        outbox_ids = [row["outbox_id"] for row in rows(connection, "outbox_ids")]
    for first in range(0, len(outbox_ids), PAGE_OUTBOXES):
        page = list(outbox_ids[first : first + PAGE_OUTBOXES])
        yield from rows(connection, statement, outbox_ids=page, **parameters)
