"""Publishing into the pipeline's own database: each batch and its settle are one transaction."""

import psycopg

from relay.drains.fence import FencedSession
from relay.drains.outbox import Batch, Reader, Settlement
from relay.models import Message
from workers.batches import Delivery, Disarm
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
        self._publisher.hold_lease()
        with self._session.transaction():
            settled = self._publisher.publish(messages)
            if not settled.delivered and not settled.dead:
                raise psycopg.Rollback
            self._reader.settle_inside(settled)
        counted = Settlement(settled.offset_id, failure=settled.failure)
        return counted, self._reader.read(messages[-1].id, None, bell)
