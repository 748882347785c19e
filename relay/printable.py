"""Foreign text for a terminal: what a terminal would obey, or would not show, is written as an escape.

That is: control characters (C0, DEL and C1), characters that turn the direction of text, that have no width or end a
line, tags, and halves of surrogate pairs. Programs that are given JSON get the same characters as escapes of JSON.
"""

import re

_CLASS = (
    "\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_IN_A_LINE = re.compile(f"[\0-\x1f{_CLASS}]")
_IN_LINES = re.compile(f"[\0-\x08\x0b-\x1f{_CLASS}]")


def printable(text: str) -> str:
    """A value as a part of one line: line breaks and tabs become escapes too."""
    return _IN_A_LINE.sub(_escape, text)


def printable_lines(text: str) -> str:
    """A text of several lines."""
    return _IN_LINES.sub(_escape, text)


def printable_json(text: str) -> str:
    """JSON that means the same."""
    return _IN_LINES.sub(_json_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in "\n\r\t":
        return repr(match[0])[1:-1]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(match: re.Match[str]) -> str:
    if match[0] < " ":
        return " "  # between values, since JSON has none in a string
    units = match[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
