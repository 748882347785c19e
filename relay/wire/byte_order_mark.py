"""A byte order mark at the beginning of a text, which some programs of Windows write: it is no part of the text.

The one rule, for every body, line, configuration and secret that comes from outside.
"""

BYTES = b"\xef\xbb\xbf"
_MARK = "\ufeff"


def text_of(data: bytes) -> str:
    """Raises UnicodeDecodeError."""
    return without_mark(data.decode())


def without_mark(text: str) -> str:
    return text.removeprefix(_MARK)
