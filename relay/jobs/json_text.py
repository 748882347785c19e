"""Values of an application as JSON that PostgreSQL can hold."""

from typing import Any

import pydantic_core

NOT_JSON = "JSON cannot hold it"
NUL = "it has the character NUL, which PostgreSQL cannot store"
MOST_RESULT_BYTES = 65_536


def json_text(value: Any) -> str:
    """Also of dates, UUIDs, decimals, enums, dataclasses and pydantic models. Raises ValueError, which says why."""
    try:
        text = pydantic_core.to_json(value, inf_nan_mode="strings").decode()
    except ValueError as error:
        raise ValueError(f"{NOT_JSON}: {error}") from None
    if has_nul(text):
        raise ValueError(NUL)
    return text


def has_nul(text: str) -> bool:
    """Whether a text of JSON has it, as an escape: not where the backslash itself is escaped."""
    return "\\u0000" in text and "\\u0000" in text.replace("\\\\", "")


def result_text(result: Any) -> str | None:
    """What a handler returned, to be kept with its attempt. Raises ValueError, which says why it cannot be."""
    if result is None:
        return None
    text = json_text(result)
    if len(text.encode()) > MOST_RESULT_BYTES:
        raise ValueError(f"it has more than {MOST_RESULT_BYTES} bytes as JSON; store it, and return where it is")
    return text
