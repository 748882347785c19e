"""Records as no client in Python can write them: sent to a broker by hand."""

import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from tests.services.kafka_log import crc32c


class Foreign(NamedTuple):
    body: bytes
    headers: Sequence[tuple[bytes, bytes | None]] = ()
    key: bytes | None = None


def send_foreign(url: str, topic: str, records: Sequence[Foreign], partition: int = 0) -> None:
    """One batch, confirmed by the broker."""
    batch = _batch(records)
    name = topic.encode()
    request = struct.pack(">hhih4s", 0, 7, 1, 4, b"test") + struct.pack(">hhi", -1, -1, 10_000)
    request += struct.pack(">ih", 1, len(name)) + name + struct.pack(">iii", 1, partition, len(batch)) + batch
    host, _, port = url.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        stream = connection.makefile("rb")
        (size,) = struct.unpack(">i", stream.read(4))
        answer = stream.read(size)
    # Number of the request, topics, length and name of the topic, partitions, partition, then the error.
    (error,) = struct.unpack_from(">h", answer, 4 + 4 + 2 + len(name) + 4 + 4)
    assert error == 0, f"the broker answered with error {error}"


def _batch(records: Sequence[Foreign]) -> bytes:
    packed = b"".join(_record(number, record) for number, record in enumerate(records))
    covered = struct.pack(">hiqqqhii", 0, len(records) - 1, 0, 0, -1, -1, -1, len(records)) + packed
    return struct.pack(">qiibI", 0, 9 + len(covered), -1, 2, crc32c(covered)) + covered


def _record(number: int, record: Foreign) -> bytes:
    fields = b"\0" + _varint(0) + _varint(number) + _bytes(record.key) + _bytes(record.body)
    fields += _varint(len(record.headers))
    fields += b"".join(_bytes(name) + _bytes(value) for name, value in record.headers)
    return _varint(len(fields)) + fields


def _bytes(data: bytes | None) -> bytes:
    return _varint(-1) if data is None else _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """Zigzag, seven bits in a byte."""
    left = number << 1 if number >= 0 else (-number << 1) - 1
    encoded = bytearray()
    while left > 0x7F:
        encoded.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*encoded, left])
