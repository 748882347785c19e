"""Messages -> records, with a net under each message: one that cannot be encoded is a failure, its neighbours go on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from relay.models import Failure, Message, Record
from relay.process.unforeseen import INTERNAL, unforeseen
from relay.wire.encode import Wire


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch as records, without those messages that cannot be encoded."""

    records: list[Record]
    indexes: list[int] = field(default_factory=list)
    """Of each record in the batch; empty where nothing failed, as all are there."""
    failures: list[Failure] = field(default_factory=list)

    def with_failures(self, of_records: Sequence[Failure]) -> list[Failure]:
        """These, of records, by their indexes in the batch; and those of messages that are no records."""
        found = [replace(failure, index=self.indexes[failure.index]) for failure in of_records]
        return sorted(self.failures + found, key=lambda failure: failure.index)


def encode(wire: Wire, messages: Sequence[Message], *, in_order: bool) -> Encoded:
    """With `in_order`, nothing after a message that cannot be encoded is a record: it waits for the next batch."""
    try:
        return Encoded(wire.records(messages))
    except Exception:  # noqa: BLE001  it is met again below
        return _encode_each(wire, messages, in_order)


def _encode_each(wire: Wire, messages: Sequence[Message], in_order: bool) -> Encoded:
    encoded = Encoded([])
    for index, message in enumerate(messages):
        if in_order and encoded.failures:
            encoded.failures.append(Failure(index, False, INTERNAL, "waits for the one before it"))
            break
        try:
            encoded.records.extend(wire.records([message]))
            encoded.indexes.append(index)
        except Exception as error:  # noqa: BLE001  a bug, or something that no one has thought of
            encoded.failures.append(unforeseen("encoding", error, index, message=message.id))
    return encoded
