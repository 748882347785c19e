"""The forward loop: outbox -> records -> sink -> settle, batch after batch.

While the sink works on one batch, PostgreSQL settles the one before and reads the next, in one round trip.
A first batch that is all there is goes out at once: most drains of a quiet pipeline have no other.
What became of a batch is a value, so a sink's failure passes through the same path as its success.
"""

import time
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Literal

from relay.drains.lease import DrainResult
from relay.drains.outbox import Batch, Reader, Settlement, joined
from relay.models import Message
from workers.publisher import Publisher

# A busy drain that finds nothing waits once before it arms the bell: at thousands of messages a second, arming and
# disarming for every gap would cost more than the messages.
LINGER_SECONDS = 0.002

# How long what was delivered may wait to be settled. A settle of each batch of 100 would cost as much as its messages.
SETTLE_SECONDS = 0.01

Disarm = Literal["disarm"] | None

NOTHING = Batch([], 0, 0)


class Delivery(ABC):
    """How one batch is published, and settled."""

    @abstractmethod
    def deliver(self, messages: list[Message], unsettled: Settlement | None, bell: Disarm) -> tuple[Settlement, Batch]:
        """Publishes messages, and reads the batch after them.

        Returns what became of the messages, to be settled by the next call, whose `unsettled` it is. Raises Fenced,
        NotConnected (PostgreSQL), ConfigError; a sink's failure is in the settlement.
        """

    @abstractmethod
    def deliver_all(self, messages: list[Message]) -> tuple[Settlement, Batch]:
        """The same of messages after which there are no more, as far as is known: they are settled, and the bell is
        armed before the read. Nothing is settled after a failure."""


class ReadAhead(Delivery):
    """Settles the batch before and reads the batch after while the sink works on this one.

    Where nothing has to be read, because small batches are cut from a larger read, a settle waits a little for others.
    """

    def __init__(self, publisher: Publisher, reader: Reader) -> None:
        self._publisher = publisher
        self._reader = reader
        self._settle_at = 0.0

    def deliver(self, messages: list[Message], unsettled: Settlement | None, bell: Disarm) -> tuple[Settlement, Batch]:
        waiting = unsettled if unsettled and not bell and self._may_wait(unsettled, messages[-1].id) else None
        if not waiting:
            self._settle_at = time.monotonic() + SETTLE_SECONDS
        self._reader.ask(messages[-1].id, None if waiting else unsettled, bell)
        try:
            self._publisher.hold_lease(self._reader.receive)
            settled = self._publisher.publish(messages)
        finally:
            batch = self._reader.receive()
        return joined(waiting, settled) if waiting else settled, batch

    def _may_wait(self, unsettled: Settlement, after: int) -> bool:
        """Dead letters are kept at once, and a sink that keeps the offset too is not left far ahead of PostgreSQL."""
        is_plain = not unsettled.dead and not self._publisher.sink_keeps_offset
        return is_plain and self._reader.is_ahead(after) and time.monotonic() < self._settle_at

    def deliver_all(self, messages: list[Message]) -> tuple[Settlement, Batch]:
        self._publisher.hold_lease()
        settled = self._publisher.publish(messages)
        if settled.failure:
            return settled, NOTHING
        return Settlement(settled.offset_id), self._reader.read(messages[-1].id, settled, "arm")


class ForwardDrain:
    """Publishes and settles batch after batch."""

    def __init__(self, publisher: Publisher, reader: Reader, delivery: Delivery) -> None:
        self._publisher = publisher
        self._reader = reader
        self._delivery = delivery
        self._batches = 0
        self._bell_armed = True
        self._is_watched = False
        """Whether the last batch was read after the bell was armed: then there is nothing if it is empty."""

    def run(self) -> DrainResult:
        """Delivers until the outbox is empty or the slice is over. Raises Fenced, NotConnected, ConfigError."""
        publisher = self._publisher
        settled: Settlement | None = None
        batch = self._reader.first(publisher.offset_id)
        while True:
            if batch.ends_early and not batch.messages:
                settled = self._up_to(batch.horizon, settled)
                batch, settled = self._reader.read(publisher.offset_id, settled), None
                if publisher.is_over():
                    return DrainResult("more", publisher.progressed)
                continue
            if not batch.messages:
                if not self._is_watched or batch.horizon > publisher.offset_id:
                    batch = self._look_again(batch, settled)
                    settled = None
                if not batch.messages:
                    return DrainResult("again" if batch.open_publishers else "idle", publisher.progressed)
            settled, batch = self._deliver(batch, settled)
            publisher.offset_id = settled.offset_id
            if settled.failure or publisher.is_over():
                return self._finish(settled)

    def _deliver(self, batch: Batch, settled: Settlement | None) -> tuple[Settlement, Batch]:
        self._is_watched = self._batches == 0 and batch.messages[-1].id >= batch.horizon
        if self._is_watched:
            self._batches = 1
            return self._delivery.deliver_all(batch.messages)
        return self._delivery.deliver(batch.messages, settled, self._disarm())

    def _disarm(self) -> Disarm:
        """The first batch after a sleep leaves the bell armed: at a low rate it then never has to be written."""
        self._batches += 1
        if not self._bell_armed or self._batches == 1:
            return None
        self._bell_armed = False
        return "disarm"

    def _look_again(self, empty: Batch, settled: Settlement | None) -> Batch:
        """Nothing lies between offset and horizon: linger if busy, then arm the bell and look once more."""
        settled = self._up_to(empty.horizon, settled)
        if self._batches > 1 and not self._publisher.stop.wait(LINGER_SECONDS):
            batch = self._reader.read(self._publisher.offset_id, settled)
            if batch.messages:
                return batch
            settled = self._up_to(batch.horizon, None)
        self._bell_armed = True
        return self._reader.read(self._publisher.offset_id, settled, "arm")

    def _up_to(self, horizon: int, settled: Settlement | None) -> Settlement | None:
        """Moves the offset over ids that no message has: they were rolled back."""
        if horizon > self._publisher.offset_id:
            self._publisher.offset_id = horizon
            return replace(settled, offset_id=horizon) if settled else Settlement(horizon)
        return settled

    def _finish(self, settled: Settlement) -> DrainResult:
        if settled.delivered or settled.dead:
            self._reader.settle(settled)
        if settled.failure:
            return self._publisher.failed(settled.failure)
        return DrainResult("more", self._publisher.progressed)
