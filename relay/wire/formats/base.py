"""The wire formats `raw`, `envelope` and `debezium`, and what every format is made of. CloudEvents: `cloudevents.py`.

A format is a function from `Origin` to `Shape`, called once for each drain. Bodies are joined from bytes: payload and
headers of a message are JSON already, so only what comes from elsewhere has to be encoded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from relay.models import Message
from relay.wire.templates import Headers, compile_template, encode_json, header_text

Binding = Literal["kafka", "http", "nats", "amqp"]

DEFAULT_SOURCE = "/tide-relay/{outbox}"
DEFAULT_TYPE = "{type}"


@dataclass(frozen=True, slots=True)
class Origin:
    """What is the same for every message of a drain."""

    outbox: str
    pipeline: str
    keeps_headers: bool
    """Whether the sink takes headers beside the body."""
    binding: Binding | None = None
    """How CloudEvents attributes travel in them; None: not at all."""
    cloudevents_source: str = DEFAULT_SOURCE
    """A template."""
    cloudevents_type: str = DEFAULT_TYPE
    """A template; where it is empty, the type is the outbox's name."""


class Shape(NamedTuple):
    """What a format makes of a message."""

    body: Callable[[Message, Headers], bytes]
    """The second argument is empty unless `reads_headers`."""
    headers: Callable[[str, Message, Headers], dict[str, str]]
    """From the dedup id. Called only for a sink that keeps headers."""
    reads_headers: bool = False
    """The body needs the message's headers parsed."""


def rfc3339(moment: datetime) -> str:
    """The moment in UTC with microseconds, such as `2025-03-01T12:00:00.000000Z`."""
    # 0.9 microseconds; isoformat takes 1.6, more than the rest of a record together.
    utc = moment.astimezone(UTC)
    return "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ" % (  # noqa: UP031
        utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond
    )  # fmt: skip


def filled(template: str, origin: Origin) -> Callable[[Message, Headers], str]:
    """What renders a template for the messages of an origin. Raises ConfigError for a wrong template."""
    parts = compile_template(template).bind(origin.outbox, origin.pipeline)
    if len(parts) == 1 and isinstance(constant := parts[0], str):
        return lambda _message, _own: constant
    return lambda message, own: "".join([part if isinstance(part, str) else part(message, own) for part in parts])


def relay_headers(origin: Origin) -> Callable[[str, Message, Headers], dict[str, str]]:
    """The message's own headers, and ours, which win."""
    outbox = origin.outbox

    def headers(dedup_id: str, message: Message, own: Headers) -> dict[str, str]:
        ours = {"relay-id": dedup_id, "relay-outbox": outbox, "relay-created-at": rfc3339(message.created_at)}
        return own_headers(own) | ours if own else ours

    return headers


def own_headers(own: Headers) -> dict[str, str]:
    return {name: header_text(value) for name, value in own.items()}


def _payload(message: Message, _own: Headers) -> bytes:
    return message.payload


def raw(origin: Origin) -> Shape:
    """The payload as it was published."""
    return Shape(_payload, relay_headers(origin))


def envelope(origin: Origin) -> Shape:
    """Version 1: one JSON object around the payload."""
    name = encode_json(origin.outbox)
    begin = f'{{"version":1,"id":{name[:-1]}:'.encode()
    outbox_field = f'","outbox":{name},"message_id":'.encode()

    def body(message: Message, _own: Headers) -> bytes:
        number = b"%d" % message.id
        key = "null" if message.key is None else encode_json(message.key)
        fields = f',"key":{key},"created_at":"{rfc3339(message.created_at)}","headers":'.encode()
        return b"".join(
            (begin, number, outbox_field, number, fields, message.headers, b',"payload":', message.payload, b"}")
        )

    return Shape(body, relay_headers(origin))


def _routed(own: Headers) -> bool:
    """Whether the message was a row of a routed table, whose id is that of the event."""
    return "id" in own and "aggregate_type" in own


def debezium(origin: Origin) -> Shape:
    """What a consumer of Debezium's outbox event router sees: the payload as value, `id` and `eventType` as headers.

    Where the sink has no headers: the router's envelope, with the same fields and the key beside the payload.
    https://debezium.io/documentation/reference/stable/transformations/outbox-event-router.html
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
        fields: dict[str, Any] = {"id": header_text(own["id"]) if routed else f"{outbox}:{message.id}"}
        if "type" in own:
            fields["eventType"] = header_text(own["type"])
        fields["aggregateType"] = header_text(own["aggregate_type"]) if routed else outbox
        fields["aggregateId"] = message.key
        return b"".join((b'{"payload":', message.payload, b",", encode_json(fields)[1:].encode()))

    if origin.keeps_headers:
        return Shape(_payload, headers)
    return Shape(body, headers, reads_headers=True)
