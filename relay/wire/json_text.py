"""Takes JSON apart without changing it: members are slices of the text, so numbers keep every digit.

msgspec does this faster than `json_scanner` (benchmarks/formats.py shows by how much). What msgspec refuses goes to the
scanner, so every answer and every error is the scanner's: tests/wire/test_json_text.py compares the two. PostgreSQL
may still refuse a value that passes here.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from relay.wire import json_scanner
from relay.wire.json_scanner import BLANKS, decoder

# Too deep for msgspec; a surrogate in the text itself; everything else that it does not accept.
_REFUSED = (RecursionError, UnicodeEncodeError, msgspec.DecodeError)

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING = msgspec.json.Decoder(str)
_VALUE = msgspec.json.Decoder(msgspec.Raw)
# Neither floats, which have 17 digits and no 1e-400, nor what may contain them.
_Exact = str | int | bool | None
_TEXTS = msgspec.json.Decoder(dict[str, str])
_EXACT, _EXACT_OBJECT = msgspec.json.Decoder(_Exact), msgspec.json.Decoder(dict[str, _Exact])
# A string, or the blanks between two tokens. Possessive: each character is read once.
_BLANKS_OUTSIDE = re.compile(rf'("[^"\\]*+(?:\\.[^"\\]*+)*+"?)|[{BLANKS}]++', re.DOTALL)

encode_value: Callable[[Any], bytes] = msgspec.json.Encoder().encode
"""Compact JSON, as `encode_json` writes it, of what `values` returns: a `Raw` in it is written as it stands. It takes
no floats: msgspec and Python write 1e22 in different ways, and neither writes what was read."""

encode_object: Callable[[Mapping[str, str | int | bool | None]], bytes] = encode_value


def members(text: str) -> dict[str, str]:
    """The members of a JSON object, each with its value as text. Of equal names the last one counts, as in jsonb.

    Raises ValueError if the text is not a JSON object, or if more text follows it.
    """
    try:
        found = _OBJECT.decode(text)
    except _REFUSED:
        return json_scanner.members(text)
    return {name: str(value, "utf-8") for name, value in found.items()}


def values(text: str | bytes) -> dict[str, Any]:
    """The members of a JSON object, each as a value that loses nothing: `header_text` and `encode_value` write it back.

    Strings, integers, truth values and null are Python's; everything else is `Raw`. Raises ValueError.
    """
    try:
        return _EXACT_OBJECT.decode(text)
    except _REFUSED:
        found = members(text if isinstance(text, str) else text.decode())
    return {name: _value(part) for name, part in found.items()}


def texts(text: bytes) -> dict[str, str] | None:
    """`values` of an object whose values are all strings; None for any other."""
    try:
        return _TEXTS.decode(text)
    except _REFUSED:
        return None


def _value(text: str) -> Any:
    if text.startswith('"'):
        return string(text)
    try:
        return _EXACT.decode(text)
    except _REFUSED:
        return msgspec.Raw(compact(text).encode("utf-8", "surrogatepass"))


def compact(text: str) -> str:
    """As an encoder would write it, without blanks and needless escapes, but with the text of each number."""
    return _BLANKS_OUTSIDE.sub(_token, text)


def _token(found: re.Match[str]) -> str:
    text = found[1] or ""
    if "\\" not in text:
        return text
    try:
        return encode_value(string(text)).decode()
    except (ValueError, UnicodeEncodeError):  # half a surrogate pair has no other form
        return text


def parse(text: str) -> Any:
    """The value; every number in it is the text that it was. Raises ValueError, or RecursionError if it is too deep."""
    if text.startswith('"'):
        return string(text)
    return decoder.decode(text)


def string(text: str | None) -> str | None:
    """The string that the text stands for; None if it is another value. Raises ValueError if the string is invalid."""
    if text is None or not text.startswith('"'):
        return None
    try:
        return _STRING.decode(text)
    except _REFUSED:
        value = decoder.decode(text)
        return value if isinstance(value, str) else None


def scalar(text: str | None) -> str | None:
    """A string, a number or a truth value as text; None for any other. Raises ValueError if the string is invalid."""
    if text is None or text == "null" or text[:1] in ("{", "["):
        return None
    return string(text) if text.startswith('"') else text


def is_value(text: str) -> bool:
    """Whether the text is one JSON value from its first character to its last."""
    if not text or text[0] in BLANKS or text[-1] in BLANKS:
        return False
    try:
        _VALUE.decode(text)
    except _REFUSED:
        try:
            return json_scanner.value_end(text, 0) == len(text)
        except ValueError:
            return False
    return True
