"""Received -> InboxRow: the wire format, the event id and what else a row has, decided once for all sources.

The other direction of `relay/wire/encode.py`. A `Decoder` is built once per drain. PostgreSQL decides whether a payload
is JSON: it is parsed here only if a path reads it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from relay.database.connection import storable
from relay.errors import ConfigError
from relay.models import Failure, InboxRow, Received
from relay.process.unforeseen import INTERNAL, unforeseen
from relay.wire.byte_order_mark import text_of
from relay.wire.formats import cloudevents, debezium, envelope, raw
from relay.wire.formats.base import Invalid, Parts
from relay.wire.json_text import parse
from relay.wire.templates import HEADER_VARIABLE, encode_json, header_name, header_text, parse_template

LONGEST_EVENT_ID = 500
"""Characters; an index entry of PostgreSQL has a limit too."""

DEFAULT_MAX_MESSAGE_BYTES = 1024 * 1024

FORMATS: dict[str, Callable[[Received, str], Parts]] = {
    "raw": raw.decode,
    "envelope": envelope.decode,
    "cloudevents": cloudevents.decode,
    "cloudevents_structured": cloudevents.decode,
    "debezium": debezium.decode,
}
"""The values of a reverse pipeline's `wire_format`."""

CODES = ("too_large", "not_utf8", "not_json", "bad_event_id", "bad_envelope", "bad_cloudevent", "cloudevents_batch",
         "bad_debezium", INTERNAL)  # fmt: skip
"""Why a message can never become a row. What PostgreSQL refuses has other codes."""

_VARIABLES: dict[str, Callable[[Received, Parts], str | None]] = {
    "id": lambda _received, parts: parts.id,
    "key": lambda _received, parts: parts.key,
    "subject": lambda received, _parts: received.subject,
    "type": lambda _received, parts: parts.type,
    "source": lambda _received, parts: parts.source,
}
EVENT_VARIABLES = ("pipeline", *_VARIABLES, HEADER_VARIABLE)
"""The variables of `event_id`, `event_type` and `aggregate_id`."""

_PATH = re.compile(r'\$(?:\.[^.\[\]"]+|\[\d+\]|\["[^"]+"\])+')
_STEP = re.compile(r'\.([^.\[\]"]+)|\[(\d+)\]|\["([^"]+)"\]')
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")

Payload = Callable[[], Any]
"""Parses the payload at the first call."""

Field = Callable[[Received, Parts, Payload], str | None]


class Decoder:
    """Makes the rows of one drain.

    `event_id`, `event_type` and `aggregate_id` are each a template, or a path into the payload that begins with `$.`;
    None: what the wire format finds. Raises ConfigError for an unknown wire format, template variable or path.
    """

    def __init__(
        self,
        pipeline: str,
        *,
        wire_format: str = "raw",
        event_id: str | None = None,
        event_type: str | None = None,
        aggregate_id: str | None = None,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        if wire_format not in FORMATS:
            raise ConfigError(f"unknown wire_format {wire_format!r}; known: {', '.join(FORMATS)}")
        self._format = FORMATS[wire_format]
        self._event_id = _field("event_id", event_id, pipeline)
        self._event_type = _field("event_type", event_type, pipeline)
        self._aggregate_id = _field("aggregate_id", aggregate_id, pipeline)
        self._max_message_bytes = max_message_bytes

    def decode(self, received: Received) -> InboxRow | Failure:
        """The row, or why the message can never become one: a permanent failure with one of `CODES`. Never raises."""
        if received.failure is not None:
            return received.failure
        try:
            return self._row(received)
        except Invalid as error:
            return Failure(0, True, error.code, str(error))
        except Exception as error:  # noqa: BLE001  a bug, or something that no one has thought of
            return unforeseen("decoding", error, message=received.id)

    def _row(self, received: Received) -> InboxRow:
        body = received.body
        if len(body) > self._max_message_bytes:
            raise Invalid(
                "too_large", f"the body has {len(body)} bytes, max_message_bytes is {self._max_message_bytes}"
            )
        try:
            text = text_of(body)
        except UnicodeDecodeError as error:
            raise Invalid("not_utf8", f"byte {error.start + 1} of the body is not UTF-8") from None
        parts = self._format(received, text)
        payload = _parsed_once(parts.payload)
        event_id = parts.id if self._event_id is None else self._event_id(received, parts, payload)
        if not event_id or len(event_id) > LONGEST_EVENT_ID or "\0" in event_id:
            raise Invalid("bad_event_id", _wrong_id(event_id))
        return InboxRow(
            event_id,
            parts.type if self._event_type is None else self._event_type(received, parts, payload),
            parts.source,
            parts.key if self._aggregate_id is None else self._aggregate_id(received, parts, payload),
            parts.sequence,
            parts.payload,
            parts.headers_text or _headers_text(parts.headers),
            _trace_id(parts.headers) if parts.headers else None,
        )


def _wrong_id(event_id: str | None) -> str:
    if not event_id:
        return "the event id is empty or missing"
    if "\0" in event_id:
        return "the event id contains a NUL character"
    return f"the event id has {len(event_id)} characters; at most {LONGEST_EVENT_ID} are allowed"


def _field(key: str, text: str | None, pipeline: str) -> Field | None:
    if text is None:
        return None
    return _path(key, text) if text.startswith(("$.", "$[")) else _template(key, text, pipeline)


def _template(key: str, text: str, pipeline: str) -> Field:
    parts: list[str | Callable[[Received, Parts], str | None]] = []
    for literal, name in parse_template(key, text, EVENT_VARIABLES):
        parts.append(literal)
        if name == "pipeline":
            parts.append(pipeline)
        elif name is not None:
            parts.append(_VARIABLES.get(name) or _header(name))

    def render(received: Received, found: Parts, _payload: Payload) -> str | None:
        return "".join([part if isinstance(part, str) else part(received, found) or "" for part in parts]) or None

    return render


def _header(variable: str) -> Callable[[Received, Parts], str | None]:
    name = header_name(variable)
    assert name is not None
    lower = name.lower()

    def value(received: Received, parts: Parts) -> str | None:
        for headers in (parts.headers, received.headers):
            if name in headers:
                return header_text(headers[name])
            for other, found in headers.items():  # HTTP and NATS do not keep the case
                if other.lower() == lower:
                    return header_text(found)
        return None

    return value


def _path(key: str, text: str) -> Field:
    if not _PATH.fullmatch(text):
        raise ConfigError(f'{key} {text!r} is not a path such as $.order.id, $.lines[0].sku or $["odd name"]')
    steps: list[str | int] = [
        int(step[2]) if step[2] is not None else step[1] or step[3] for step in _STEP.finditer(text, 1)
    ]

    def find(_received: Received, _parts: Parts, payload: Payload) -> str | None:
        value = payload()
        for step in steps:
            if not isinstance(value, dict | list):  # a string has an index too
                return None
            try:
                value = value[step]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                return None
        if isinstance(value, bool):
            return "true" if value else "false"
        return value if isinstance(value, str) and value else None

    return find


def _parsed_once(payload: str) -> Payload:
    parsed: list[Any] = []

    def payload_value() -> Any:
        if not parsed:
            try:
                parsed.append(parse(payload))
            except (ValueError, RecursionError) as error:
                why = "nested too deeply" if isinstance(error, RecursionError) else error
                raise Invalid("not_json", f"the payload, which a path reads, is not JSON: {why}") from None
        return parsed[0]

    return payload_value


def _headers_text(headers: Mapping[str, Any]) -> str:
    if not headers:
        return "{}"
    text = encode_json(headers)
    if text.isascii() and "\\u0000" not in text:
        return text
    return encode_json({storable(name): storable(header_text(value)) for name, value in headers.items()})


def _trace_id(headers: Mapping[str, Any]) -> str | None:
    """From the header `traceparent` of W3C's trace context."""
    text = headers.get("traceparent")
    found = _TRACEPARENT.fullmatch(text) if isinstance(text, str) else None
    return found[1] if found else None
