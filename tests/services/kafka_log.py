"""What the Kafka of the tests remembers: topics, their logs, groups' offsets, transactions.

Every change is an event. It is written to a journal first and applied then, so that a broker that is killed comes back
with all that it confirmed. Batches of records are kept as producers made them; only their headers are read.

Transactions are those of KIP-98: one producer id and a growing epoch for each transactional id, records visible up to
the last stable offset, a control batch at the end of each transaction in each of its partitions.
"""

import bisect
import os
import pickle
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

BATCH_HEADER = struct.Struct(">qiibIhiqqqhii")
_TRANSACTIONAL, _CONTROL = 0x10, 0x20
OUT_OF_ORDER, FENCED = 45, 47


class Header(NamedTuple):
    base: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_delta: int
    first_time: int
    last_time: int
    producer: int
    epoch: int
    sequence: int
    records: int

    @classmethod
    def of(cls, batch: bytes) -> "Header":
        return cls(*BATCH_HEADER.unpack_from(batch))

    @property
    def transactional(self) -> bool:
        return bool(self.attributes & _TRANSACTIONAL)


@dataclass
class Partition:
    bases: list[int] = field(default_factory=list)
    batches: list[bytes] = field(default_factory=list)
    start: int = 0
    next: int = 0
    producers: dict[int, tuple[int, list[tuple[int, int, int]]]] = field(default_factory=dict)
    """By producer id: its epoch, and (first sequence, last sequence, offset) of its last five batches."""
    open: dict[int, int] = field(default_factory=dict)
    """By producer id: the first offset of its open transaction."""
    aborted: list[tuple[int, int, int]] = field(default_factory=list)
    """(producer id, first offset, offset of the control batch)."""

    @property
    def stable(self) -> int:
        return min(self.open.values(), default=self.next)

    def check(self, header: Header) -> tuple[int, int]:
        """(error, offset of the same batch if it is there already, else -1): what makes a producer idempotent."""
        epoch, recent = self.producers.get(header.producer, (-1, []))
        if header.producer < 0 or header.epoch > epoch:
            return (OUT_OF_ORDER if epoch >= 0 and header.sequence else 0), -1
        if header.epoch < epoch:
            return FENCED, -1
        for first, last, offset in recent:
            if (first, last) == (header.sequence, header.sequence + header.last_delta):
                return 0, offset
        expected = recent[-1][1] + 1 if recent else 0
        return (OUT_OF_ORDER if header.sequence != expected else 0), -1

    def append(self, batch: bytes) -> None:
        header = Header.of(batch)
        base, self.next = self.next, self.next + header.last_delta + 1
        self.bases.append(base)
        self.batches.append(struct.pack(">q", base) + batch[8:])
        if header.attributes & _CONTROL or header.producer < 0:
            return
        epoch, recent = self.producers.get(header.producer, (header.epoch, []))
        recent = recent if epoch == header.epoch else []
        last = (header.sequence, header.sequence + header.last_delta, base)
        self.producers[header.producer] = (header.epoch, [*recent, last][-5:])
        if header.transactional:
            self.open.setdefault(header.producer, base)

    def end(self, producer: int, epoch: int, commit: bool) -> None:
        """The end of a transaction."""
        first = self.open.pop(producer, None)
        if first is not None and not commit:
            self.aborted.append((producer, first, self.next))
        known, recent = self.producers.get(producer, (epoch, []))
        self.producers[producer] = (epoch, recent if known == epoch else [])
        self.append(control_batch(producer, epoch, commit))

    def read(self, offset: int, below: int, max_bytes: int) -> bytes:
        """Whole batches from the one with this offset, at least one if there is any."""
        found: list[bytes] = []
        if offset >= below:
            return b""
        at = max(0, bisect.bisect_right(self.bases, offset) - 1)
        while at < len(self.batches) and self.bases[at] < below and max_bytes > 0:
            found.append(self.batches[at])
            max_bytes -= len(self.batches[at])
            at += 1
        return b"".join(found)


@dataclass
class Transaction:
    producer: int
    epoch: int = 0
    parts: set[tuple[str, int]] = field(default_factory=set)
    offsets: dict[tuple[str, str, int], tuple[int, str | None]] = field(default_factory=dict)
    open: bool = False


class Log:
    """Each method below `change` is an event, and is called by `change` alone."""

    def __init__(self, journal: Path) -> None:
        self.topics: dict[str, list[Partition]] = {}
        self.configs: dict[str, dict[str, str]] = {}
        self.ids: dict[str, bytes] = {}
        self.offsets: dict[tuple[str, str, int], tuple[int, str | None]] = {}
        self.transactions: dict[str, Transaction] = {}
        self.next_producer = 1000
        self._replay(journal)
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def change(self, event: str, *arguments: Any) -> Any:
        data = pickle.dumps((event, arguments))
        os.write(self._journal, struct.pack(">I", len(data)) + data)
        return getattr(self, event)(*arguments)

    def create(self, topic: str, partitions: int, config: dict[str, str], topic_id: bytes) -> None:
        self.ids[topic] = topic_id
        self.topics[topic] = [Partition() for _ in range(partitions)]
        self.configs[topic] = config

    def widen(self, topic: str, partitions: int) -> None:
        self.topics[topic] += [Partition() for _ in range(partitions - len(self.topics[topic]))]

    def drop(self, topic: str) -> None:
        del self.topics[topic]

    def trim(self, topic: str, number: int, offset: int) -> None:
        self.topics[topic][number].start = offset

    def append(self, topic: str, number: int, batch: bytes) -> None:
        self.topics[topic][number].append(batch)

    def commit(self, offsets: dict[tuple[str, str, int], tuple[int, str | None]]) -> None:
        self.offsets.update(offsets)

    def new_producer(self) -> int:
        self.next_producer += 1
        return self.next_producer

    def take_over(self, name: str) -> Transaction:
        """Fences the producer that used this transactional id, and ends what it left open."""
        found = self.transactions.get(name)
        if found is None:
            found = self.transactions[name] = Transaction(self.new_producer())
            return found
        found.epoch += 1
        self.end(name, False)
        return found

    def join(self, name: str, parts: list[tuple[str, int]]) -> None:
        self.transactions[name].open = True
        self.transactions[name].parts.update(parts)

    def promise(self, name: str, offsets: dict[tuple[str, str, int], tuple[int, str | None]]) -> None:
        self.transactions[name].open = True
        self.transactions[name].offsets.update(offsets)

    def end(self, name: str, commit: bool) -> None:
        transaction = self.transactions[name]
        for topic, number in sorted(transaction.parts):
            if topic in self.topics:
                self.topics[topic][number].end(transaction.producer, transaction.epoch, commit)
        if commit:
            self.offsets.update(transaction.offsets)
        transaction.parts, transaction.offsets, transaction.open = set(), {}, False

    def _replay(self, journal: Path) -> None:
        data = journal.read_bytes() if journal.exists() else b""
        at = 0
        while at + 4 <= len(data):
            (length,) = struct.unpack_from(">I", data, at)
            if at + 4 + length > len(data):
                break
            event, arguments = pickle.loads(data[at + 4 : at + 4 + length])
            getattr(self, event)(*arguments)
            at += 4 + length
        if at < len(data):
            os.truncate(journal, at)


def control_batch(producer: int, epoch: int, commit: bool) -> bytes:
    key, value = struct.pack(">hh", 0, int(commit)), struct.pack(">hi", 0, 0)
    # Attributes, time and offset deltas of zero, then key, value, and no headers; lengths are zigzag.
    record = b"\0\0\0" + bytes([len(key) * 2]) + key + bytes([len(value) * 2]) + value + b"\0"
    records = bytes([len(record) * 2]) + record
    covered = struct.pack(">hiqqqhii", _TRANSACTIONAL | _CONTROL, 0, 0, 0, producer, epoch, -1, 1) + records
    return struct.pack(">qiibI", 0, 9 + len(covered), 0, 2, crc32c(covered)) + covered


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
