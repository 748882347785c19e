"""Takes JSON apart in Python. It is the reference for `json_text`, and its fallback for what msgspec refuses.

msgspec refuses documents that are nested too deeply, NaN, and escaped surrogates without their other half. All of them
pass here, because PostgreSQL decides what it stores. benchmarks/formats.py compares the costs.
"""

import json
import re

BLANKS = " \t\r\n"

# Numbers stay text: Python would refuse one of more than 4300 digits, and a float of many would change.
decoder = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
"""Every number becomes the text that it was."""

# For values that are nested too deeply for the decoder: a string, or a bracket. A string that does not end takes the
# rest of the text, and possessive quantifiers never go back: each character is read once.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)


def members(text: str) -> dict[str, str]:
    """The members of a JSON object, each with its value as text. Of equal names the last one counts, as in jsonb.

    Raises ValueError if the text is not a JSON object, or if more text follows it.
    """
    at = skip_blanks(text, 0)
    if not text.startswith("{", at):
        raise ValueError("not a JSON object")
    found: dict[str, str] = {}
    try:
        at = skip_blanks(text, at + 1)
        while text[at] != "}":
            if text[at] != '"':
                raise ValueError(f"no name of a member at character {at + 1}")
            name, at = decoder.raw_decode(text, at)
            at = skip_blanks(text, at)
            if text[at] != ":":
                raise ValueError(f"no colon at character {at + 1}")
            begin = skip_blanks(text, at + 1)
            end = value_end(text, begin)
            found[name] = text[begin:end]
            at = skip_blanks(text, end)
            if text[at] == ",":
                at = skip_blanks(text, at + 1)
                if text[at] == "}":
                    raise ValueError(f"a comma without a member after it, at character {at + 1}")
            elif text[at] != "}":
                raise ValueError(f"neither a comma nor the end of the object at character {at + 1}")
    except IndexError:
        raise ValueError("the object does not end") from None
    if skip_blanks(text, at + 1) != len(text):
        raise ValueError(f"more text after the object, at character {at + 2}")
    return found


def value_end(text: str, begin: int) -> int:
    """The position after the value that begins here. Raises ValueError."""
    try:
        _, end = decoder.raw_decode(text, begin)
    except RecursionError:
        return _deep_value_end(text, begin)
    return end


def _deep_value_end(text: str, begin: int) -> int:
    depth = 0
    for token in _TOKEN.finditer(text, begin):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
            if depth == 0:
                return token.end()
    raise ValueError("the value does not end")


def skip_blanks(text: str, at: int) -> int:
    """The position of the next character that is not white space; the length of the text if there is none."""
    while at < len(text) and text[at] in BLANKS:
        at += 1
    return at
