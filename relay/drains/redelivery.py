"""What a pipeline is requested to deliver once more: dead letters that are retried, ranges that are replayed.

Requests are made in SQL (`sql/functions/redelivery.sql`). The rule that binds this module: every write names the
fence of the drain, and none moves the offset of the group.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relay.database.connection import database_errors, storable
from relay.drains.fence import FencedSession
from relay.models import MAX_BATCH_BYTES, Failure, Message, Received
from relay.sql import query
from relay.wire.formats.base import own_headers
from relay.wire.json_text import values


@dataclass(frozen=True, slots=True)
class RedeliveryBatch:
    """Messages to be delivered once more, in order; all of one outbox."""

    messages: Sequence[Message]
    outbox: str
    dead_letter_ids: Sequence[int] = ()
    """Of each message, if they are dead letters."""
    replay_id: int | None = None
    next_id: int = 0
    """Where the replay goes on when these are settled."""


@dataclass(frozen=True, slots=True)
class ReceivedDeadLetter:
    """A dead letter of a reverse pipeline, as it was received."""

    dead_letter_id: int
    message: Received


class Redeliveries:
    """Reads for a drain what its pipeline is to redeliver, and settles. Raises Fenced, NotConnected (PostgreSQL)."""

    def __init__(self, session: FencedSession) -> None:
        self._session = session

    def next(self, max_messages: int, max_dead_letters: int) -> RedeliveryBatch | None:
        """The next batch: dead letters first, then the current replay. None if nothing is requested any more.

        A batch of a replay is empty when nothing of the rest of its range is kept; it is to be settled all the same.
        """
        with database_errors():
            dead = self._fetch("redelivery_dead_letters", max_messages=max_dead_letters)
            if dead:
                return RedeliveryBatch([Message(*row[2:]) for row in dead], dead[0][1], [row[0] for row in dead])
            for replay_id, next_id, to_id in self._fetch("replay_next"):
                rows = self._fetch("replay_read", next_id=next_id, to_id=to_id, max_messages=max_messages)
                following = min(rows[-1][0], to_id) + 1 if rows else to_id + 1
                messages = [Message(*row) for row in rows]
                return RedeliveryBatch(messages, self._session.start.outbox, (), replay_id, following)
        return None

    def received(self, max_messages: int) -> list[ReceivedDeadLetter]:
        """The next dead letters of a reverse pipeline."""
        with database_errors():
            return [
                ReceivedDeadLetter(dead_letter_id, Received(event_id, body, own_headers(values(headers)), key, subject))
                for dead_letter_id, event_id, body, headers, key, subject in self._fetch(
                    "redelivery_received", max_messages=max_messages
                )
            ]

    def settle_dead_letters(self, delivered: Sequence[int], refused: Sequence[tuple[int, Failure]]) -> None:
        """Removes dead letters that were delivered; keeps those that were refused again, and retries them no more."""
        self._settle("redelivery_settle", refused, delivered_ids=list(delivered))

    def settle_replay(
        self, batch: RedeliveryBatch, delivered: Sequence[int], refused: Sequence[tuple[int, Failure]]
    ) -> None:
        """A replay goes on after these messages; those that were refused are dead letters."""
        self._settle(
            "replay_settle",
            refused,
            delivered_ids=list(delivered),
            dead_letters=len(refused),
            replay_id=batch.replay_id,
            next_id=batch.next_id,
        )

    def _settle(self, name: str, refused: Sequence[tuple[int, Failure]], **parameters: object) -> None:
        sent_at = time.monotonic()
        columns = {
            "ids": [number for number, _ in refused],
            "codes": [failure.code for _, failure in refused],
            "reasons": [storable(failure.reason) for _, failure in refused],
        }
        with self._session.transaction():
            if refused and name == "replay_settle":
                self._session.execute_once("settle_dead_letters", **columns)
            self._session.check_renewal(self._session.execute(name, **columns, **parameters), sent_at)

    def _fetch(self, name: str, **parameters: object) -> list[Any]:
        given = self._session.parameters(max_bytes=MAX_BATCH_BYTES, **parameters)
        return self._session.connection.execute(query(name), given, prepare=False, binary=True).fetchall()
