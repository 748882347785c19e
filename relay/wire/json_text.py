"""Taking JSON apart without changing it: members are slices of the text, so numbers keep every digit.

Nothing here says whether the inner text is valid in PostgreSQL's eyes; whoever stores it finds out.
"""

import json
import re

BLANKS = " \t\r\n"

# Numbers stay text: Python would refuse one of more than 4300 digits, and a float of many would change.
decoder = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
"""Every number comes out as the text that it was."""

# For what is nested too deeply for the decoder: a string, or whatever opens or closes something.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def members(text: str) -> dict[str, str]:
    """The members of a JSON object, each with its value as text. Of equal names the last counts, as in jsonb.

    Raises ValueError if it is no JSON object, or if something comes after it.
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
    """Where the value ends that begins here. Raises ValueError."""
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
    """Where the next character stands that is no white space; the length of the text if there is none."""
    while at < len(text) and text[at] in BLANKS:
        at += 1
    return at


def string(text: str | None) -> str | None:
    """The string that a slice stands for; None if it is no string."""
    if text is None or not text.startswith('"'):
        return None
    value = decoder.decode(text)
    return value if isinstance(value, str) else None


def scalar(text: str | None) -> str | None:
    """A string, a number or a truth value as text; None for anything else."""
    if text is None or text == "null" or text[:1] in ("{", "["):
        return None
    return string(text) if text.startswith('"') else text
