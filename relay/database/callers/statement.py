"""The statement that calls a function, and its values: each a text, which PostgreSQL casts.

So no driver's own idea of a type matters, nor an adapter that the application has registered for one, and a statement
has the same text whatever the values are.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import count
from typing import NamedTuple

from relay.errors import BadValue

Value = str | int | float | bool | datetime | None | Sequence["Value"]


@dataclass(frozen=True, slots=True)
class Call:
    """What another function of ours returns, in place of a value: both are called in one statement."""

    function: str
    arguments: "Arguments"


Arguments = Mapping[str, tuple[str, Value | Call]]
_Types = tuple[tuple[str, "str | _Shape"], ...]
_Shape = tuple[str, _Types]
"""A function, and the name and the type of each argument; of one that is a call, the shape of that."""

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_TYPE = re.compile(r'([a-z][a-z0-9_]*|"char")(\[\])?\Z')
_IN_QUOTES = str.maketrans({"\\": "\\\\", '"': '\\"'})


class Texts(NamedTuple):
    """Of a statement, whatever its values are."""

    formatted: str
    """With `%s`, the style of psycopg and psycopg2."""
    numbered: str
    """With `$1`, the style of PostgreSQL and asyncpg."""
    encoded: bytes
    """The first one, as psycopg takes it."""


class Statement(NamedTuple):
    texts: Texts
    values: tuple[str | None, ...]


def statement_of(function: str, arguments: Arguments, *, one_value: bool = False) -> Statement:
    """Raises BadValue, which names the argument, for a value that PostgreSQL cannot hold.

    `one_value`: the function returns no more than that, and is not read as a table then, which costs PostgreSQL more.
    """
    values: list[str | None] = []
    return Statement(_texts(_shape(function, arguments, values), one_value), tuple(values))


def _shape(function: str, arguments: Arguments, values: list[str | None]) -> _Shape:
    """Appends the values in the order of their placeholders."""
    types: list[tuple[str, str | _Shape]] = []
    for name, (sql_type, value) in arguments.items():
        if isinstance(value, Call):
            types.append((name, _shape(value.function, value.arguments, values)))
        else:
            types.append((name, sql_type))
            values.append(sent(name, value))
    return function, tuple(types)


@lru_cache(maxsize=256)
def _texts(shape: _Shape, one_value: bool) -> Texts:
    # Only names, which are checked.
    what = "select" if one_value else "select * from"
    formatted, numbered = (f"{what} {_called(shape, count(1), numbered=each)}" for each in (False, True))
    return Texts(formatted, numbered, formatted.encode())


def _called(shape: _Shape, numbers: Iterator[int], *, numbered: bool) -> str:
    function, types = shape
    given = []
    for name, kind in types:
        if isinstance(kind, tuple):
            value = _called(kind, numbers, numbered=numbered)
        elif _TYPE.match(kind):
            value = f"{f'${next(numbers)}' if numbered else '%s'}::text::{kind}"
        else:
            raise ValueError(f"not a type: {kind}")
        given.append(f"{name} => {value}")
    if not all(_NAME.match(name) for name in (function, *(name for name, _ in types))):
        raise ValueError(f"not the names of a function and its arguments: {shape}")
    return f"tide.{function}({', '.join(given)})"


def sent(name: str, value: Value) -> str | None:
    """The value as a text. Raises BadValue, which names it."""
    text = value if type(value) is str else _as_text(name, value)
    if text is None or (text.isascii() and "\0" not in text):
        return text
    if "\0" in text:
        raise BadValue(f"{name}: the text has the character NUL, which PostgreSQL cannot store")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadValue(f"{name}: the text has half of a surrogate pair, which is no character") from error
    return text


def _as_text(name: str, value: Value) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return str.__str__(value)  # of an Enum of texts, the text
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise BadValue(f"{name}: a time without a time zone is not a moment; for example datetime.now(UTC)")
        return value.isoformat()
    if isinstance(value, int):
        return format(value, "d")  # also of an Enum of numbers, and 1 or 0 of a bool
    if isinstance(value, float):
        return float.__repr__(value)
    return "{" + ",".join(_element(_as_text(name, each)) for each in value) + "}"


def _element(text: str | None) -> str:
    return "null" if text is None else f'"{text.translate(_IN_QUOTES)}"'
