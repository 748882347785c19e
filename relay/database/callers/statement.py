"""The statement that calls a function, and its values: each a text, which PostgreSQL casts.

So no driver's own idea of a type matters, nor an adapter that the application has registered for one, and a statement
has the same text whatever the values are.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from relay.errors import BadValue

Value = str | int | float | bool | datetime | None | Sequence["Value"]

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_TYPE = re.compile(r"[a-z][a-z0-9_]*(\[\])?\Z")
_IN_QUOTES = str.maketrans({"\\": "\\\\", '"': '\\"'})


@dataclass(frozen=True, slots=True)
class Statement:
    function: str
    types: tuple[tuple[str, str], ...]
    """The name and the type of each argument."""
    values: tuple[str | None, ...]

    @property
    def formatted(self) -> str:
        """With `%s`, the style of psycopg and psycopg2."""
        return _text(self.function, self.types, numbered=False)

    @property
    def numbered(self) -> str:
        """With `$1`, the style of PostgreSQL and asyncpg."""
        return _text(self.function, self.types, numbered=True)


def statement_of(function: str, arguments: Mapping[str, tuple[str, Value]]) -> Statement:
    """Raises BadValue, which names the argument, for a value that PostgreSQL cannot hold."""
    types = tuple((name, sql_type) for name, (sql_type, _) in arguments.items())
    return Statement(function, types, tuple(_sent(name, value) for name, (_, value) in arguments.items()))


@lru_cache(maxsize=256)
def _text(function: str, types: tuple[tuple[str, str], ...], *, numbered: bool) -> str:
    if not (_NAME.match(function) and all(_NAME.match(name) and _TYPE.match(kind) for name, kind in types)):
        raise ValueError(f"not a function with the names and types of its arguments: {function} {types}")
    given = (
        f"{name} => {f'${number}' if numbered else '%s'}::text::{kind}"
        for number, (name, kind) in enumerate(types, start=1)
    )
    return f"select * from tide.{function}({', '.join(given)})"  # noqa: S608  names were checked above; no values


def _sent(name: str, value: Value) -> str | None:
    text = _as_text(name, value)
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
