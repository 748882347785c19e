"""The part of Kafka's protocol that `kafka_broker.py` speaks: of each request one version, its fields and the answer's.

Fields are given as Kafka's protocol guide gives them, one letter each: `b` int8, `h` int16, `i` int32, `q` int64, `s` a
string or null, `B` bytes or null; a list is an array of what is in it (null reads as None), a string of several
letters or a tuple is one after the other. Most versions are from before tagged fields. In one that is `flexible`,
strings are `c`, arrays are `Compact`, `u` is a UUID, and `t` the tagged fields that end a structure: there are none.
"""

import struct
from typing import Any, NamedTuple

Shape = Any
_NUMBERS = {letter: struct.Struct(f">{letter}") for letter in "bhiq"}


class Compact(list[Shape]):
    """An array of a flexible version."""


class Api(NamedTuple):
    name: str
    version: int
    request: Shape
    answer: Shape
    flexible: bool = False


_MANY = Compact(["i"])
METADATA_WITH_IDS = Api(
    "metadata_with_ids",
    12,
    (Compact([("uct",)]), "bb"),
    ("i", Compact([("icict",)]), "ci", Compact([("hcub", Compact([("hiii", _MANY, _MANY, _MANY, "t")]), "it")])),
    flexible=True,
)
"""In place of `metadata`, by a broker whose topics have ids."""

_PARTITION_ERRORS = [("s", [("ih",)])]

APIS: dict[int, Api] = {
    0: Api("produce", 7, ("shi", [("s", [("iB",)])]), ([("s", [("ihqqq",)])], "i")),
    1: Api("fetch", 4, ("iiiib", [("s", [("iqi",)])]), ("i", [("s", [("ihqq", [("qq",)], "B")])])),
    2: Api("list_offsets", 2, ("ib", [("s", [("iq",)])]), ("i", [("s", [("ihqq",)])])),
    3: Api("metadata", 4, (["s"], "b"), ("i", [("isis",)], "si", [("hsb", [("hii", ["i"], ["i"])])])),
    8: Api("offset_commit", 3, ("sisq", [("s", [("iqs",)])]), ("i", _PARTITION_ERRORS)),
    9: Api("offset_fetch", 3, ("s", [("s", ["i"])]), ("i", [("s", [("iqsh",)])], "h")),
    10: Api("find_coordinator", 1, ("sb",), ("ihsisi",)),
    17: Api("sasl_handshake", 1, ("s",), ("h", ["s"])),
    18: Api("api_versions", 0, (), ("h", [("hhh",)])),
    19: Api("create_topics", 4, ([("sih", [("i", ["i"])], [("ss",)])], "ib"), ("i", [("shs",)])),
    20: Api("delete_topics", 1, (["s"], "i"), ("i", [("sh",)])),
    21: Api("delete_records", 0, ([("s", [("iq",)])], "i"), ("i", [("s", [("iqh",)])])),
    22: Api("init_producer_id", 3, ("ciqh",), ("ihqh",), flexible=True),
    24: Api("add_partitions", 0, ("sqh", [("s", ["i"])]), ("i", _PARTITION_ERRORS)),
    25: Api("add_offsets", 0, ("sqhs",), ("ih",)),
    26: Api("end_transaction", 1, ("sqhb",), ("ih",)),
    28: Api("transaction_offsets", 0, ("ssqh", [("s", [("iqs",)])]), ("i", _PARTITION_ERRORS)),
    36: Api("sasl_authenticate", 0, ("B",), ("hsB",)),
    37: Api("create_partitions", 0, ([("si", [(["i"],)])], "ib"), ("i", [("shs",)])),
}


class Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read(self, shape: Shape) -> Any:
        """A value for a letter, a list for a list; everything else is one flat list of fields."""
        if isinstance(shape, list):
            count = self._short() - 1 if isinstance(shape, Compact) else self._number("i")
            inner = shape[0]
            return None if count < 0 else [self.read(inner) for _ in range(count)]
        if isinstance(shape, tuple):
            fields: list[Any] = []
            for part in shape:
                fields += [self._field(letter) for letter in part] if isinstance(part, str) else [self.read(part)]
            return fields
        return self._field(shape)

    def _field(self, letter: str) -> Any:
        if letter in _NUMBERS:
            return self._number(letter)
        if letter == "t":
            return self._short()
        if letter == "u":
            length = 16
        else:
            length = self._short() - 1 if letter == "c" else self._number("h" if letter == "s" else "i")
        if length < 0:
            return None
        self._at += length
        taken = self._data[self._at - length : self._at]
        return taken if letter in "Bu" else taken.decode()

    def _short(self) -> int:
        """Seven bits in a byte, the lowest first."""
        number = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    def _number(self, letter: str) -> int:
        number = _NUMBERS[letter]
        (value,) = number.unpack_from(self._data, self._at)
        self._at += number.size
        return int(value)


def write(shape: Shape, value: Any) -> bytes:
    """The mirror of `Reader.read`."""
    if isinstance(shape, Compact):
        return _short(len(value) + 1) + b"".join(write(shape[0], each) for each in value)
    if isinstance(shape, list):
        return struct.pack(">i", len(value)) + b"".join(write(shape[0], each) for each in value)
    if isinstance(shape, tuple):
        values = iter(value)
        parts: list[bytes] = []
        for part in shape:
            letters: Any = part if isinstance(part, str) else [part]
            parts += [b"\0" if each == "t" else write(each, next(values)) for each in letters]
        return b"".join(parts)
    return _field(shape, value)


def _field(shape: str, value: Any) -> bytes:
    if shape in _NUMBERS:
        return _NUMBERS[shape].pack(value)
    if shape == "u":
        return bytes(value)
    if shape == "c":
        return b"\0" if value is None else _short(len(value.encode()) + 1) + value.encode()
    length = "h" if shape == "s" else "i"
    if value is None:
        return _NUMBERS[length].pack(-1)
    data = value.encode() if shape == "s" else value
    return _NUMBERS[length].pack(len(data)) + bytes(data)


def _short(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
