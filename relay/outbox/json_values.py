"""Values of an application as JSON that PostgreSQL can store, or an error that names the place of what it cannot.

The encoder is that of the standard library, in C. It does not know where it was when it failed, so only then, the
value is walked to find the place.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from relay.errors import BadValue
from relay.printable import printable

_LONGEST_KEY = 60
_LONGEST_PLACE = 300
_DEEPEST = 1000
_ESCAPED_NUL = "\\u0000"
_INSTEAD = {
    set: "a set has no order: use sorted(...)",
    frozenset: "a set has no order: use sorted(...)",
    bytes: "bytes are no text: decode them, or use base64",
    bytearray: "bytes are no text: decode them, or use base64",
    memoryview: "bytes are no text: decode them, or use base64",
    complex: "JSON has no complex numbers",
}


def json_text(value: Any, place: str) -> str:
    """The JSON of a value, on one line. `place` is what errors call the value: `payload`. Raises BadValue."""
    try:
        text = _encode(value)
        if not text.isascii():
            text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        what = "nested too deep" if isinstance(error, RecursionError) else f"cannot be written as JSON: {error}"
        raise (_first_fault(value, place) or BadValue(f"{place}: {what}")) from error
    # It may also be the text of an escape.
    if _ESCAPED_NUL in text and (found := _first_fault(value, place)):
        raise found
    return text


def _plain(value: Any) -> Any:
    """What stands for a value that JSON does not have, one level deep. Raises TypeError that says what to do."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if callable(dump := getattr(value, "model_dump", None)) and not isinstance(value, type):
        return dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    if (write := _writer(value)) is not None:
        return write(value)
    raise TypeError(
        next((text for kind, text in _INSTEAD.items() if isinstance(value, kind)), None)
        or f"an object of {type(value).__qualname__} is not JSON: use a dict, a dataclass or a pydantic model"
    )


def _writer(value: Any) -> Callable[[Any], str] | None:
    if isinstance(value, datetime | time):
        return _moment
    if isinstance(value, date):
        return date.isoformat
    if isinstance(value, UUID):
        return str
    return _digits if isinstance(value, Decimal) else None


def _moment(value: datetime | time) -> str:
    return value.isoformat().replace("+00:00", "Z")


def _digits(value: Decimal) -> str:
    if not value.is_finite():
        raise ValueError(f"JSON has no {value}")
    return str(value)


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain).encode


def _first_fault(value: Any, place: str) -> BadValue | None:
    """The first part of the value that cannot be written. Looks no deeper than the encoder can write."""
    parts: list[tuple[Any, str, tuple[Any, ...]]] = [(value, place, ())]
    while parts:
        part, at, above = parts.pop()
        if any(part is each for each in above):
            return _refused(at, "contains itself")
        if fault := _fault(part):
            return _refused(at, fault)
        try:
            members = list(_members(part, at)) if len(above) < _DEEPEST else []
        except Exception as error:  # noqa: BLE001  whatever an object says when it is to become plain
            return _refused(at, str(error))
        parts += [(member, member_at, (*above, part)) for member, member_at in reversed(members)]
    return None


def _refused(at: str, fault: str) -> BadValue:
    """The place is cut in its middle where it is long: its end says most."""
    shown = at if len(at) <= _LONGEST_PLACE else f"{at[: _LONGEST_PLACE // 4]}...{at[-_LONGEST_PLACE // 2 :]}"
    return BadValue(f"{shown}: {fault}")


def _fault(part: Any) -> str | None:
    """What is wrong with a value of JSON itself, if it is one."""
    if isinstance(part, str):
        return _text_fault(part)
    if isinstance(part, float) and not math.isfinite(part):
        return f"JSON has no {part}"
    if isinstance(part, int):
        try:
            str(part)
        except ValueError as error:
            return str(error)
    if isinstance(part, dict):
        for key in part:
            if not isinstance(key, str | int | float | None):
                return f"a key is of {type(key).__qualname__}: the keys of JSON are texts"
            if isinstance(key, str) and (fault := _text_fault(key)):
                return f"a key: {fault}"
    return None


def _text_fault(text: str) -> str | None:
    if "\0" in text:
        return "the text has the character NUL, which PostgreSQL cannot store"
    if not text.isascii() and any("\ud800" <= each <= "\udfff" for each in text):
        return "the text has half of a surrogate pair, which is no character"
    return None


def _members(part: Any, at: str) -> Iterator[tuple[Any, str]]:
    if isinstance(part, dict):
        for key, member in part.items():
            yield member, f"{at}{_step(key)}"
    elif isinstance(part, list | tuple):
        for index, member in enumerate(part):
            yield member, f"{at}[{index}]"
    elif not isinstance(part, str | int | float | None):
        yield _plain(part), at


def _step(key: Any) -> str:
    text = str(key)
    if text.isidentifier() and len(text) <= _LONGEST_KEY:
        return f".{text}"
    shown = printable(text[:_LONGEST_KEY]) + ("..." if len(text) > _LONGEST_KEY else "")
    return f'["{shown}"]'
