"""How far consumer groups are behind, with one statement for each outbox that has any to read.

A join of all groups with `tide.message` would be planned over every partition of every outbox.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from relay.database.connection import Connection
from relay.sql import query


@dataclass(frozen=True, slots=True)
class Behind:
    """A consumer group whose offset is below the last id of its outbox."""

    outbox_id: int
    offset_id: int
    last_id: int


@dataclass(frozen=True, slots=True)
class Lag:
    """The messages above an offset, open and rolled back ones left out."""

    messages: int
    """At most the limit they were counted to."""
    first_id: int
    seconds: float
    """Age of the oldest."""


Lags = dict[tuple[int, int], Lag]
"""By outbox_id and offset_id. Without a message above the offset there is no entry."""


def read_lags(connection: Connection, behind: Iterable[Behind], count_limit: int) -> Lags:
    """Counts up to `count_limit` messages of each. Raises psycopg.Error.

    What is not prepared is planned for the values at hand, whatever the session is set to.
    """
    by_outbox: dict[int, list[Behind]] = defaultdict(list)
    for group in behind:
        by_outbox[group.outbox_id].append(group)
    lags: Lags = {}
    for outbox_id, groups in by_outbox.items():
        offset_ids = sorted({group.offset_id for group in groups})
        parameters = {
            "outbox_id": outbox_id,
            "offset_ids": offset_ids,
            "lowest_id": offset_ids[0],
            "last_id": max(group.last_id for group in groups),
            "count_limit": count_limit,
        }
        found = connection.execute(query("outbox_lag"), parameters, prepare=False)
        for offset_id, messages, first_id, seconds in found:
            lags[outbox_id, offset_id] = Lag(messages, first_id, seconds)
    return lags
