"""Arrays as parameters of statements that write many rows.

psycopg finds out the type of each element of a list, and dumps each by a call of its own. What is written here is the
binary form of an array of one dimension. They are parameters in binary: `%(name)b::text[]`.
"""

import struct
from collections.abc import Sequence

from psycopg import pq
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Dumper

_HEAD = struct.Struct("!iiIii").pack
"""Dimensions, whether there are nulls, type of the elements, their number, index of the first."""
_EMPTY_HEAD = struct.Struct("!iiI").pack
_LENGTH = struct.Struct("!i").pack
_BIGINT = struct.Struct("!iq").pack
_NULL = _LENGTH(-1)


class Texts:
    """A `text[]`. Raises UnicodeEncodeError, when it is sent, for what is no text in UTF-8."""

    __slots__ = ("values",)

    def __init__(self, values: Sequence[str | None]) -> None:
        self.values = values


class Bigints:
    """A `bigint[]`."""

    __slots__ = ("values",)

    def __init__(self, values: Sequence[int | None]) -> None:
        self.values = values


class _TextsDumper(Dumper):
    format = pq.Format.BINARY
    oid = 1009

    def dump(self, obj: Texts) -> Buffer:
        parts: list[bytes] = []
        for value in obj.values:
            if value is None:
                parts.append(_NULL)
            else:
                text = value.encode()
                parts.append(_LENGTH(len(text)))
                parts.append(text)
        return _array(25, len(obj.values), None in obj.values, parts)


class _BigintsDumper(Dumper):
    format = pq.Format.BINARY
    oid = 1016

    def dump(self, obj: Bigints) -> Buffer:
        parts = [_NULL if value is None else _BIGINT(8, value) for value in obj.values]
        return _array(20, len(parts), None in obj.values, parts)


def _array(element: int, length: int, has_null: bool, parts: Sequence[bytes]) -> bytes:
    head = _HEAD(1, has_null, element, length, 1) if length else _EMPTY_HEAD(0, 0, element)
    return head + b"".join(parts)


def register(adapters: AdaptersMap) -> None:
    """Lets the connections that are made with these adapters take both."""
    adapters.register_dumper(Texts, _TextsDumper)
    adapters.register_dumper(Bigints, _BigintsDumper)
