"""Lines of JSON -> messages. Payloads stay text: none is decoded and encoded again, so no number loses a digit."""

import json
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from relay.wire.byte_order_mark import text_of

# As in PostgreSQL's largest `max_payload_bytes`: a longer line is not a message, and is not kept in memory.
LONGEST_LINE_BYTES = 256 * 1024 * 1024
BLANKS = " \t\r\n"
MEMBERS = ("key", "headers", "type", "payload")


class BadLine(ValueError):
    """One line that cannot be published."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"line {number}: {reason}")


class Line(NamedTuple):
    """The message on one line."""

    number: int
    """From 1."""
    payload: str
    key: str | None
    headers: str
    """A JSON object."""
    ignored: tuple[str, ...] = ()
    """Members beside the payload that have no meaning."""


def read_lines(file: BinaryIO, longest_bytes: int = LONGEST_LINE_BYTES) -> Iterator[tuple[Line, int]]:
    """Each line that is not blank, and the bytes read up to its end. Raises BadLine."""
    number, read_bytes = 0, 0
    while raw := file.readline(longest_bytes + 1):
        number += 1
        read_bytes += len(raw)
        if len(raw) > longest_bytes:
            raise BadLine(number, f"longer than {longest_bytes} bytes")
        try:
            text = text_of(raw).strip(BLANKS)
        except UnicodeDecodeError as error:
            raise BadLine(number, f"not UTF-8: byte {error.start + 1} of the line") from None
        if text:
            yield parse_line(number, text), read_bytes


def parse_line(number: int, text: str) -> Line:
    """The message on a line: an object with a `payload` member names its parts, anything else is the payload.

    Raises BadLine.
    """
    try:
        value, end = _decoder.raw_decode(text)
    except json.JSONDecodeError as error:
        raise BadLine(number, f"not JSON: {error.msg} at column {error.pos + 1}") from None
    except RecursionError:
        raise BadLine(number, "nested too deeply") from None
    except ValueError as error:
        raise BadLine(number, f"not JSON: {error}") from None
    if end != len(text):
        raise BadLine(number, f"not JSON: more text after the value, at column {_skip_blanks(text, end) + 1}")
    if not isinstance(value, dict) or "payload" not in value:
        return Line(number, text, None, "{}")
    parts = members(text)
    ignored = tuple(name for name in parts if name not in MEMBERS)
    return Line(number, parts["payload"], _key(number, parts, value.get("key")), _headers(number, parts), ignored)


def members(text: str) -> dict[str, str]:
    """The members of a valid JSON object, each with its value as text. Of equal names the last counts, as in jsonb."""
    found: dict[str, str] = {}
    at = _skip_blanks(text, 1)
    while text[at] != "}":
        name, at = _decoder.raw_decode(text, at)
        begin = _skip_blanks(text, _skip_blanks(text, at) + 1)
        _, end = _decoder.raw_decode(text, begin)
        found[name] = text[begin:end]
        at = _skip_blanks(text, end)
        if text[at] == ",":
            at = _skip_blanks(text, at + 1)
    return found


def _key(number: int, parts: dict[str, str], key: str | None) -> str | None:
    text = parts.get("key", "null")
    if key is None or text == "null":
        return None
    if not text.startswith('"'):
        raise BadLine(number, "key must be a string or null")
    if "\0" in key or not _encodable(key):
        raise BadLine(number, "key has a character that PostgreSQL cannot keep")
    return key


def _headers(number: int, parts: dict[str, str]) -> str:
    """The headers with the type, which wins over one that they have: in jsonb the last of equal names counts."""
    headers, kind = parts.get("headers", "null"), parts.get("type", "null")
    if headers == "null":
        headers = "{}"
    elif not headers.startswith("{"):
        raise BadLine(number, "headers must be an object or null")
    if kind == "null":
        return headers
    if not kind.startswith('"'):
        raise BadLine(number, "type must be a string or null")
    inner = headers[1:-1].strip()
    return f'{{{inner}{"," if inner else ""}"type":{kind}}}'


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


# Numbers stay text: Python would refuse one of more than 4300 digits.
_decoder = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant)


def _skip_blanks(text: str, at: int) -> int:
    while text[at] in BLANKS:
        at += 1
    return at


def _encodable(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
