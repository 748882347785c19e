"""Texts of others that a column of PostgreSQL cannot hold: with NUL in them, or half of a surrogate pair.

The message is worth more than the text of its key. So such a text is stored as base64, and the message is a row.
"""

import base64


def storable_text(text: str) -> str:
    """The text itself, or base64 of its UTF-8."""
    if "\0" not in text:
        if text.isascii():
            return text
        try:
            text.encode()
        except UnicodeEncodeError:
            pass
        else:
            return text
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()
