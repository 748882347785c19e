"""What a pipeline is asked to deliver once more: dead letters that are retried, ranges that are replayed.

Requests are made in SQL (`sql/functions/redelivery.sql`). The rule that binds this module: every write names the
fence of the drain, and none moves the offset of the group.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relay.database.connection import Connection, database_errors, storable
from relay.drains.lease import DrainStart, Lease
from relay.drains.outbox import MAX_BATCH_BYTES
from relay.errors import Fenced
from relay.models import Failure, Message, Received
from relay.sql import query


@dataclass(frozen=True, slots=True)
class Again:
    """Messages to be delivered once more, in order; all of one outbox."""

    messages: Sequence[Message]
    outbox: str
    dead_letter_ids: Sequence[int] = ()
    """Of each message, if they are dead letters."""
    replay_id: int | None = None
    next_id: int = 0
    """Where the replay goes on when these are settled."""


@dataclass(frozen=True, slots=True)
class ReceivedAgain:
    """A dead letter of a reverse pipeline, as it was received."""

    dead_letter_id: int
    message: Received


class Redeliveries:
    """One drain's session with what is asked of its pipeline. Raises Fenced, and NotConnected for PostgreSQL."""

    config_changed = False
    """Whether the pipeline was changed or disabled since the drain began, as of the last settle."""

    def __init__(self, connection: Connection, lease: Lease, begun: DrainStart) -> None:
        self._connection = connection
        self._lease = lease
        self._begun = begun
        self._parameters = {
            **lease.fence,
            "lease_seconds": lease.seconds,
            "outbox": begun.outbox,
            "outbox_id": begun.outbox_id,
            "max_bytes": MAX_BATCH_BYTES,
        }

    def next(self, max_messages: int, max_dead_letters: int) -> Again | None:
        """The next batch: dead letters first, then the replay in hand. None if nothing is asked for any more.

        A batch of a replay is empty when nothing of the rest of its range is kept; it is to be settled all the same.
        """
        with database_errors():
            dead = self._fetch("redelivery_dead_letters", max_messages=max_dead_letters)
            if dead:
                return Again([Message(*row[2:]) for row in dead], dead[0][1], [row[0] for row in dead])
            for replay_id, next_id, to_id in self._fetch("replay_next"):
                rows = self._fetch("replay_read", next_id=next_id, to_id=to_id, max_messages=max_messages)
                following = min(rows[-1][0], to_id) + 1 if rows else to_id + 1
                return Again([Message(*row) for row in rows], self._begun.outbox, (), replay_id, following)
        return None

    def received(self, max_messages: int) -> list[ReceivedAgain]:
        """The next dead letters of a reverse pipeline."""
        with database_errors():
            return [
                ReceivedAgain(dead_letter_id, Received(event_id, body, headers, key, subject))
                for dead_letter_id, event_id, body, headers, key, subject in self._fetch(
                    "redelivery_received", max_messages=max_messages
                )
            ]

    def settle_dead_letters(self, delivered: Sequence[int], refused: Sequence[tuple[int, Failure]]) -> None:
        """Dead letters that were delivered are gone; those that were refused again stay, and are asked for no more."""
        self._settle("redelivery_settle", refused, delivered_ids=list(delivered))

    def settle_replay(self, again: Again, delivered: Sequence[int], refused: Sequence[tuple[int, Failure]]) -> None:
        """A replay goes on after these messages; those that were refused are dead letters."""
        self._settle(
            "replay_settle",
            refused,
            delivered_ids=list(delivered),
            dead_letters=len(refused),
            replay_id=again.replay_id,
            next_id=again.next_id,
        )

    def _settle(self, name: str, refused: Sequence[tuple[int, Failure]], **parameters: object) -> None:
        sent_at = time.monotonic()
        columns = {
            "ids": [number for number, _ in refused],
            "codes": [failure.code for _, failure in refused],
            "reasons": [storable(failure.reason) for _, failure in refused],
        }
        with database_errors(), self._connection.transaction():
            self._connection.execute(query("durably"))
            if refused and name == "replay_settle":
                self._connection.execute(query("settle_dead_letters"), self._parameters | columns)
            fence = self._connection.execute(query(name), self._parameters | columns | parameters).fetchone()
            if fence is None:
                drain = self._lease.drain
                raise Fenced(f"drain {drain.number} of pipeline {drain.pipeline!r} was given up")
        self._lease.renewed(sent_at)
        self.config_changed = fence[0] != self._begun.revision

    def _fetch(self, name: str, **parameters: object) -> list[Any]:
        return self._connection.execute(query(name), self._parameters | parameters, binary=True).fetchall()
