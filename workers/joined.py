"""Publishing into the pipeline's own database: each batch and its settle are one transaction."""

import psycopg

from relay.drains.fence import FencedSession
from relay.drains.outbox import Batch, Reader, Settlement
from relay.models import Message
from workers.batches import NOTHING, Delivery, Disarm
from workers.publisher import Publisher


class Joined(Delivery):
    """For a sink that writes on the connection of the drain: see `TransactionalSink`."""

    def __init__(self, publisher: Publisher, reader: Reader, session: FencedSession) -> None:
        self._publisher = publisher
        self._reader = reader
        self._session = session

    def deliver(
        self,
        messages: list[Message],
        unsettled: Settlement | None,  # noqa: ARG002  it has settled already
        bell: Disarm,
    ) -> tuple[Settlement, Batch]:
        counted = self._settled(messages)
        return counted, self._reader.read(messages[-1].id, None, bell)

    def deliver_all(self, messages: list[Message]) -> tuple[Settlement, Batch]:
        counted = self._settled(messages)
        return counted, NOTHING if counted.failure else self._reader.read(messages[-1].id, None, "arm")

    def _settled(self, messages: list[Message]) -> Settlement:
        """Published and settled; of what became of them, what the caller is still to see to."""
        self._publisher.hold_lease()
        with self._session.transaction():
            settled = self._publisher.publish(messages)
            if not settled.delivered and not settled.dead:
                raise psycopg.Rollback
            self._reader.settle_inside(settled)
        return Settlement(settled.offset_id, failure=settled.failure)
