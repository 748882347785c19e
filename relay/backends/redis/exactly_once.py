"""What Redis refused because the stream's last id is not below it: delivered already, or a stream that is not ours?

With `exactly_once`, entry ids grow with message ids. A refused record was delivered before if the entry of its id is
there and carries its `relay-id`. If there is no such entry, then it was removed, or the message was passed over when
its turn was: Redis cannot take it any more, and to call it delivered could lose it, so it becomes a dead letter.
If the stream's last entry is not one of ours, then something else writes to it, and an operator has to act.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from redis.exceptions import ResponseError

from relay.backends.redis.connection import Command, RedisLink
from relay.backends.redis.entry import HEADER_PREFIX, ID_FIELD
from relay.models import Failure, Record

_ID = (HEADER_PREFIX + ID_FIELD).encode()
_CREATED = (HEADER_PREFIX + "relay-created-at").encode()

# Entries are read whole, because Redis cannot give fields alone: so few at a time that memory stays bounded.
_ENTRIES_AT_ONCE = 50
_BYTES_AT_ONCE = 4 * 1024 * 1024


def judge(link: RedisLink, refused: Mapping[int, Record], deadline: float) -> dict[int, Failure]:
    """What became of the refused records, by their index; those that were delivered are not named."""
    failures: dict[int, Failure] = {}
    for some in _portions(refused):
        stream = refused[some[0]].subject
        ids = [f"{refused[index].id}-0" for index in some]
        commands: list[Command] = [("XRANGE", stream, entry_id, entry_id) for entry_id in ids]
        commands.append(("XREVRANGE", stream, "+", "-", "COUNT", 1))
        *found, last = link.exchange(stream, commands, deadline)
        for index, there in zip(some, found, strict=True):
            failure = _verdict(index, refused[index], there, last)
            if failure is not None:
                failures[index] = failure
    return failures


def _portions(refused: Mapping[int, Record]) -> Iterator[list[int]]:
    """Indexes to ask about together, of one stream each."""
    streams: dict[str, list[int]] = {}
    for index in sorted(refused):
        streams.setdefault(refused[index].subject, []).append(index)
    for indexes in streams.values():
        some: list[int] = []
        size = 0
        for index in indexes:
            if some and (len(some) >= _ENTRIES_AT_ONCE or size + len(refused[index].body) > _BYTES_AT_ONCE):
                yield some
                some, size = [], 0
            some.append(index)
            size += len(refused[index].body)
        yield some


def _verdict(index: int, record: Record, there: Any, last: Any) -> Failure | None:
    stream, entry_id = record.subject, f"{record.id}-0"
    for answer in (there, last):
        if isinstance(answer, ResponseError):
            return Failure(index, False, "rejected", f"stream {stream!r} cannot be read back: {answer}")
    if there and _is_of(there[0][1], record):
        return None
    if there or (last and not _is_ours(last[0])):
        foreign = entry_id if there else last[0][0].decode()
        return Failure(
            index, False, "foreign_stream",
            f"entry {foreign} of stream {stream!r} is not of this outbox: with exactly_once no one else may write to "
            "the stream; give the pipeline a stream of its own, or set exactly_once to false",
        )  # fmt: skip
    return Failure(
        index, True, "id_passed",
        f"stream {stream!r} is beyond id {entry_id}, and has no such entry: it was delivered and removed, or is sent "
        "out of its turn; Redis takes no id twice",
    )  # fmt: skip


def _fields(flat: list[bytes] | None) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True)) if flat else {}


def _is_of(flat: list[bytes], record: Record) -> bool:
    """An outbox that was dropped and made again counts from 1 again: the time tells the two apart."""
    fields = _fields(flat)
    created = record.headers.get("relay-created-at")
    if created is not None and _CREATED in fields and fields[_CREATED] != created.encode():
        return False
    return fields.get(_ID) == record.dedup_id.encode()


def _is_ours(entry: Any) -> bool:
    entry_id, flat = entry
    number, _, sequence = entry_id.partition(b"-")
    return sequence == b"0" and _fields(flat).get(_ID, b"").endswith(b":" + number)
