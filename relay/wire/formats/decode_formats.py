"""What each wire format finds in a message that a source received: the ways back of `wire_formats.py`.

A format is a function from the message and its body as text to `Parts`. It raises `Invalid` for what will never be of
that format. Payloads and headers are slices of the text: nothing is written anew, so every number keeps its digits.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from relay.models import Received
from relay.wire.json_text import decoder, members, scalar, skip_blanks, string, value_end


class Invalid(Exception):
    """The message cannot become a row, now or later. `code` is a short stable word."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Parts(NamedTuple):
    """What a message consists of."""

    id: str
    """The default event id."""
    type: str | None
    source: str | None
    key: str | None
    sequence: int | None
    payload: str
    """JSON text."""
    headers: Mapping[str, Any]
    headers_text: str | None = None
    """The headers as JSON, where they came as JSON."""


def raw(received: Received, text: str) -> Parts:
    """The body is the payload; an empty one, such as a Kafka tombstone, is null."""
    headers = received.headers
    return Parts(
        received.id,
        headers.get("type"),
        received.subject or None,
        received.key,
        None,
        text or "null",
        headers,
    )


def envelope(_received: Received, text: str) -> Parts:
    """Version 1 of our own envelope."""
    try:
        found = members(text)
    except ValueError as error:
        raise Invalid("bad_envelope", f"the body is not an envelope: {error}") from None
    if found.get("version") != "1":
        version = found.get("version", "missing")[:20]
        raise Invalid("bad_envelope", f"the body is not an envelope: version is {version}, not 1")
    event_id, payload = string(found.get("id")), found.get("payload")
    if event_id is None or payload is None:
        raise Invalid("bad_envelope", "the envelope has no id, or no payload")
    headers_text = found.get("headers", "{}")
    if not headers_text.startswith("{"):
        raise Invalid("bad_envelope", "the headers of the envelope are not an object")
    try:
        headers = {} if headers_text == "{}" else decoder.decode(headers_text)
    except RecursionError:
        headers = {}  # they are stored all the same
    return Parts(
        event_id,
        _text(headers.get("type")),
        string(found.get("outbox")),
        string(found.get("key")),
        _bigint(found.get("message_id")),
        payload,
        headers,
        headers_text,
    )


def debezium(received: Received, text: str) -> Parts:
    """What Debezium's outbox event router sends, by whatever converter: see `wire_formats.debezium`.

    With the header `id` the value is the payload; else it is the router's envelope, an object with `payload` and
    additional fields.
    """
    headers = received.headers
    value = _without_schema(text) if text else "null"
    event_id, kind = _plain(headers.get("id")), _plain(_header(headers, "eventType"))
    source, key = _plain(_header(headers, "aggregateType")), _plain(received.key)
    if event_id is None:
        try:
            fields = members(value)
        except ValueError:
            fields = {}
        if "payload" not in fields:
            raise Invalid(
                "bad_debezium", "the message has neither the header id nor an envelope with the member payload"
            )
        value = fields["payload"]
        event_id = scalar(fields.get("id")) or received.id
        kind = scalar(fields.get("eventType")) or scalar(fields.get("type")) or kind
        source = scalar(fields.get("aggregateType")) or source
        key = scalar(fields.get("aggregateId")) or key
    return Parts(event_id, kind, source or received.subject or None, key, None, _unquoted(value), headers)


def _header(headers: Mapping[str, str], name: str) -> str | None:
    """HTTP has no capitals in the names of headers, as far as a receiver can tell."""
    return headers.get(name, headers.get(name.lower()))


def _without_schema(text: str) -> str:
    """The payload of Kafka Connect's `{"schema": ..., "payload": ...}`; the text itself if it is none."""
    if not text.startswith("{", skip_blanks(text, 0)):
        return text
    try:
        fields = members(text)
    except ValueError:
        return text  # not JSON, which is for PostgreSQL to say
    return fields["payload"] if fields.keys() == {"schema", "payload"} else text


def _plain(text: str | None) -> str | None:
    """A key or a header that a JSON converter has put in quotes, with or without a schema."""
    if text is None or text[:1] not in ('"', "{"):
        return text
    value = _without_schema(text)
    try:
        return scalar(value) if value.startswith('"') or value is not text else text
    except ValueError:
        return text


def _unquoted(text: str) -> str:
    """The router sends JSON columns as a string in a string, unless it was told to expand them."""
    begin = skip_blanks(text, 0)
    if not text.startswith('"', begin):
        return text
    try:
        inner = string(text[begin:].rstrip()) or ""
        complete = inner[:1] in ("{", "[") and value_end(inner, 0) == len(inner)
    except ValueError:
        return text
    return inner if complete else text


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _bigint(text: str | None) -> int | None:
    if text is None or not text.isdigit() or len(text) > 19:
        return None
    number = int(text)
    return number if number < 2**63 else None
