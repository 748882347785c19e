"""The wire format `debezium`: what consumers of Debezium's outbox event router read, and what that router sends.

https://debezium.io/documentation/reference/stable/transformations/outbox-event-router.html
"""

from collections.abc import Mapping

from relay.models import Message, Received
from relay.wire.formats.base import Encoder, Invalid, Origin, Parts, own_headers, payload_as_body
from relay.wire.json_scanner import BLANKS
from relay.wire.json_text import encode_object, is_value, members, scalar, string
from relay.wire.templates import Headers, header_text


def encoder(origin: Origin) -> Encoder:
    """The payload as value, `id` and `eventType` as headers.

    For a sink without headers: the router's envelope, with the same fields and the key beside the payload.
    """
    outbox = origin.outbox

    def headers(dedup_id: str, _message: Message, own: Headers) -> dict[str, str]:
        made = own_headers(own)
        if "type" in made:
            made["eventType"] = made["type"]
        if _routed(own):
            # The router sends what it was told to, and nothing else.
            made.pop("type", None)
            del made["aggregate_type"]
        else:
            made["id"] = dedup_id
        return made

    def body(message: Message, own: Headers) -> bytes:
        routed = _routed(own)
        fields: dict[str, str | None] = {"id": header_text(own["id"]) if routed else f"{outbox}:{message.id}"}
        if "type" in own:
            fields["eventType"] = header_text(own["type"])
        fields["aggregateType"] = header_text(own["aggregate_type"]) if routed else outbox
        fields["aggregateId"] = message.key
        return b"".join((b'{"payload":', message.payload, b",", encode_object(fields)[1:]))

    if origin.keeps_headers:
        return Encoder(payload_as_body, headers)
    return Encoder(body, headers, reads_headers=True)


def decode(received: Received, text: str) -> Parts:
    """What the router sends, by any converter.

    With the header `id` the value is the payload; without it, the value is the router's envelope, an object with
    `payload` and additional fields.
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


def _routed(own: Headers) -> bool:
    """Whether the message was a row of a routed table, whose id is that of the event."""
    return "id" in own and "aggregate_type" in own


def _header(headers: Mapping[str, str], name: str) -> str | None:
    """HTTP does not keep capitals in the names of headers."""
    return headers.get(name, headers.get(name.lower()))


def _without_schema(text: str) -> str:
    """The payload of Kafka Connect's `{"schema": ..., "payload": ...}`; any other text as it is."""
    if not text.lstrip(BLANKS).startswith("{"):
        return text
    try:
        fields = members(text)
    except ValueError:
        return text  # not JSON, and PostgreSQL will say so
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
    value = text.lstrip(BLANKS)
    if not value.startswith('"'):
        return text
    try:
        inner = string(value.rstrip()) or ""
    except ValueError:
        return text
    return inner if inner.startswith(("{", "[")) and is_value(inner) else text
