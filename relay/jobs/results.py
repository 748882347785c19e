"""What a handler returned, as it is kept with its attempt."""

from relay.errors import BadValue
from relay.outbox.json_values import json_text

MOST_BYTES = 65_536


def result_text(result: object) -> str | None:
    """Raises BadValue, which says why it cannot be kept."""
    if result is None:
        return None
    text = json_text(result, "result")
    if len(text.encode()) > MOST_BYTES:
        raise BadValue(f"result: more than {MOST_BYTES} bytes of JSON; store it, and return where it is")
    return text
