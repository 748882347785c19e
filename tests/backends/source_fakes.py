"""Sources that break the contract, each in one way. `test_source_broken_fakes.py` shows that the suite catches them."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from relay.backends.memory.source import MemorySource, log
from relay.backends.source import SourceFeatures
from relay.errors import NotConnected
from relay.models import Received
from tests.backends.memory.test_source import MemoryQueue

# What hangs, hangs on this, so that a test can let its threads go.
released = threading.Event()


class Changed(MemorySource):
    """Hands out what `change` makes of a batch."""

    def change(self, received: list[Received]) -> list[Received]:
        return received

    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:
        return self.change(super().receive(max_messages, wait_seconds))


class SpoilsText(Changed):
    def change(self, received: list[Received]) -> list[Received]:
        return [message._replace(body=message.body.decode("ascii", "ignore").encode()) for message in received]


class LosesEmptyBodies(Changed):
    def change(self, received: list[Received]) -> list[Received]:
        return [message for message in received if message.body]


class DropsKeys(Changed):
    def change(self, received: list[Received]) -> list[Received]:
        return [message._replace(key=None) for message in received]


class DropsHeaders(Changed):
    def change(self, received: list[Received]) -> list[Received]:
        return [message._replace(headers={}) for message in received]


class HasNoNet(MemorySource):
    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:
        return [self.convert(message) for message in self.fetch(max_messages, wait_seconds)]


class LosesWhatItCannotConvert(Changed):
    def change(self, received: list[Received]) -> list[Received]:
        return [message for message in received if message.failure is None]


class Reorders(Changed):
    def change(self, received: list[Received]) -> list[Received]:
        return received[::-1]


class LosesOne(Changed):
    def change(self, received: list[Received]) -> list[Received]:
        return received[:-1] if len(received) > 50 else received


class HasNoIds(Changed):
    def change(self, received: list[Received]) -> list[Received]:
        return [message._replace(id="") for message in received]


class HasNewIdsEachTime(Changed):
    _openings = 0

    def open(self, positions: Mapping[str, str]) -> None:
        HasNewIdsEachTime._openings += 1
        super().open(positions)

    def change(self, received: list[Received]) -> list[Received]:
        return [message._replace(id=f"{message.id}-{self._openings}") for message in received]


class HandsOutMore(MemorySource):
    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:
        return super().receive(max_messages + 1, wait_seconds)


class BelongsToOneThread(Changed):
    _opener = 0

    def open(self, positions: Mapping[str, str]) -> None:
        self._opener = threading.get_ident()
        super().open(positions)

    def change(self, received: list[Received]) -> list[Received]:
        if threading.get_ident() != self._opener:
            raise RuntimeError("opened by another thread")
        return received


class HoldsTheWholeBacklog(Changed):
    _hoard: tuple[bytes, ...] = ()

    def change(self, received: list[Received]) -> list[Received]:
        if not self._hoard:
            self._hoard = tuple(bytes(bytearray(entry.body)) for entry in log("contract").entries)
        return received


class DoesNotWait(MemorySource):
    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:
        return super().receive(max_messages, 0)


class WaitsOutItsTime(MemorySource):
    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:
        found = super().receive(max_messages, 0)
        released.wait(wait_seconds)
        return found or super().receive(max_messages, 0)


class WaitsForAFullBatch(MemorySource):
    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:
        found = super().receive(max_messages, wait_seconds)
        return found + (super().receive(max_messages - len(found), wait_seconds) if len(found) < max_messages else [])


class IgnoresTheTimeLimit(MemorySource):
    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:
        if not log("contract").running.is_set():
            released.wait()
        return super().receive(max_messages, wait_seconds)


class DoesNotEndItsWait(MemorySource):
    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:
        if found := super().receive(max_messages, 0):
            return found
        released.wait(wait_seconds)
        return []


class AcknowledgesOnReceive(MemoryQueue):
    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:
        received = super().receive(max_messages, wait_seconds)
        self.ack(received)
        return received


class AcknowledgesNothing(MemoryQueue):
    def ack(self, received: Sequence[Received]) -> None:
        pass


class LosesOnRest(MemoryQueue):
    def release(self) -> None:
        log("contract").acknowledged |= set(self._held)
        super().release()


class KeepsWhatItHoldsForItself(MemoryQueue):
    """A worker that rests and does not give back: what it held comes to others only when it closes."""

    _keepers: ClassVar[dict[int, list[int]]] = {}

    def release(self) -> None:
        self._keepers[id(self)] = list(self._held)

    def close(self) -> None:
        self._keepers.pop(id(self), None)
        super().close()

    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:
        kept = {index for owner, held in self._keepers.items() if owner != id(self) for index in held}
        return [m for m in super().receive(max_messages, wait_seconds) if m.token not in kept]


class ForgetsWhatItHeldWhenItRests(MemoryQueue):
    def release(self) -> None:
        self._held = []


class HandsOutTwice(MemoryQueue):
    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:
        if self._held:
            self._next = self._held[0]
        self._skips_acknowledged = True
        return super().receive(max_messages, wait_seconds)


class CannotReadAhead(MemoryQueue):
    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:
        return [] if self._held else super().receive(max_messages, wait_seconds)


class RefusesASecondAcknowledgement(MemoryQueue):
    def ack(self, received: Sequence[Received]) -> None:
        if any(message.token in log("contract").acknowledged for message in received):
            raise NotConnected("unknown delivery tag")
        super().ack(received)


class IgnoresPositions(MemorySource):
    def open(self, positions: Mapping[str, str]) -> None:
        super().open({})


class TakesTheFurtherOfBoth(MemorySource):
    """Goes by the positions, but never back behind what was acknowledged."""

    def open(self, positions: Mapping[str, str]) -> None:
        super().open(positions)
        self._skips_acknowledged = True


class RepeatsTheLast(MemorySource):
    def open(self, positions: Mapping[str, str]) -> None:
        super().open({name: str(max(0, int(position) - 1)) for name, position in positions.items()})


class GivesTheFirstLaneEverything(MemorySource):
    features = replace(MemorySource.features, one_lane=None)

    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:
        return super().receive(max_messages, wait_seconds) if self.lane.number == 0 else []


class HangsOnClose(MemorySource):
    def close(self) -> None:
        if self._log is not None:
            released.wait()
        super().close()


class ClosesOnlyOnce(MemorySource):
    _closed = False

    def close(self) -> None:
        if self._closed:
            raise RuntimeError("already closed")
        self._closed = self._log is not None
        super().close()


class ReceivesUnopened(MemorySource):
    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:
        if self._log is None:
            self.open({})
        return super().receive(max_messages, wait_seconds)


class OpensOnlyOnce(MemorySource):
    def open(self, positions: Mapping[str, str]) -> None:
        if self._log is not None:
            raise RuntimeError("already open")
        super().open(positions)


class LeavesAThread(MemorySource):
    def open(self, positions: Mapping[str, str]) -> None:
        threading.Thread(target=released.wait, daemon=True).start()
        super().open(positions)


class RaisesForeignErrors(MemorySource):
    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:
        try:
            return super().receive(max_messages, wait_seconds)
        except NotConnected as error:
            raise ConnectionResetError("from the client library") from error


class SaysNothingOfATrouble(MemorySource):
    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:
        try:
            return super().receive(max_messages, wait_seconds)
        except NotConnected:
            return []


class GoesOnBehindWhatItLostWithTheConnection(MemoryQueue):
    """Skips by the highest that it has seen, which is not what was written."""

    _seen: ClassVar[int] = -1

    def open(self, positions: Mapping[str, str]) -> None:
        super().open(positions)
        self._next = self._seen + 1

    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:
        received = super().receive(max_messages, wait_seconds)
        GoesOnBehindWhatItLostWithTheConnection._seen = max([self._seen, *(message.token for message in received)])
        return received[: max(1, len(received) - 1)]


class TakesAnyCredentials(MemorySource):
    features: ClassVar[SourceFeatures] = replace(MemorySource.features, needs_credentials=True)


class AssumesThatItIsThere(MemorySource):
    features: ClassVar[SourceFeatures] = replace(MemorySource.features, needs_source=True)
