"""Forward wire formats of CloudEvents 1.0.2: binary where the transport has a binding for headers, else structured.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md and its bindings for Kafka, HTTP, NATS and AMQP.
"""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from relay.models import Message
from relay.wire.formats.base import Origin, Shape, filled, relay_headers, rfc3339
from relay.wire.templates import Headers, encode_json, header_text

PREFIXES = {"kafka": "ce_", "http": "ce-", "nats": "ce-", "amqp": "cloudEvents_"}
"""What the names of attributes begin with in the headers of each binding. The underscore of AMQP is the one that its
binding prefers."""

PERCENT_ENCODED = frozenset({"http", "nats"})
"""The bindings whose header values are percent-encoded."""

STRUCTURED_TYPE = "application/cloudevents+json"

# Everything printable in ASCII but space, double quote and percent: HTTP binding, section 3.1.3.2.
_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')

_EXTENSION = re.compile(r"[a-z0-9]{1,20}")
_RESERVED = frozenset({"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"})
_DATA_TYPE = "application/json"

Attributes = Callable[[str, Message, Headers], dict[str, Any]]


def cloudevents(origin: Origin) -> Shape:
    """Binary mode by the sink's binding; structured where it has none."""
    if origin.binding is None or not origin.keeps_headers:
        return structured(origin)
    binding, prefix = origin.binding, PREFIXES[origin.binding]
    attributes, beside = _attributes(origin), relay_headers(origin)
    encodes = binding in PERCENT_ENCODED

    def headers(dedup_id: str, message: Message, own: Headers) -> dict[str, str]:
        made = beside(dedup_id, message, own)
        if own:
            made = _without_events(made)
        for name, value in attributes(dedup_id, message, own).items():
            text = header_text(value)
            made[prefix + name] = quote(text, safe=_SAFE) if encodes else text
        made["content-type"] = _DATA_TYPE
        return made

    return Shape(lambda message, _own: message.payload, headers)


def structured(origin: Origin) -> Shape:
    """The event as one JSON object, the payload in it as it was published."""
    attributes, beside = _attributes(origin), relay_headers(origin)
    outbox = origin.outbox

    def body(message: Message, own: Headers) -> bytes:
        event = attributes(f"{outbox}:{message.id}", message, own)
        event["datacontenttype"] = _DATA_TYPE
        return b"".join((encode_json(event)[:-1].encode(), b',"data":', message.payload, b"}"))

    def headers(dedup_id: str, message: Message, own: Headers) -> dict[str, str]:
        made = beside(dedup_id, message, own)
        if own:
            made = _without_events(made)
        made["content-type"] = STRUCTURED_TYPE
        return made

    return Shape(body, headers, reads_headers=True)


def _attributes(origin: Origin) -> Attributes:
    """What makes the attributes of an event but `datacontenttype`, which travels under a name of its own."""
    source_of, type_of = filled(origin.cloudevents_source, origin), filled(origin.cloudevents_type, origin)
    has_partitionkey = origin.binding == "kafka"

    def attributes(dedup_id: str, message: Message, own: Headers) -> dict[str, Any]:
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": dedup_id,
            "source": source_of(message, own) or f"/tide-relay/{origin.outbox}",
            "type": type_of(message, own) or origin.outbox,
            "time": rfc3339(message.created_at),
        }
        if message.key:
            event["subject"] = message.key
        for name, value in own.items():
            if value is not None and name not in _RESERVED and _EXTENSION.fullmatch(name):
                event[name] = _extension(value)
        if has_partitionkey and message.key is not None:
            event["partitionkey"] = message.key
        return event

    return attributes


def _extension(value: Any) -> str | int | bool:
    """A value of the types that an attribute may have: text, true and false, integers of 32 bits."""
    if isinstance(value, int) and (isinstance(value, bool) or -(2**31) <= value < 2**31):
        return value
    return header_text(value)


def _without_events(headers: dict[str, str]) -> dict[str, str]:
    """No header of a message may pass for an attribute of the event."""
    prefixes = ("ce_", "ce-", "cloudevents_", "cloudevents:")
    return {
        name: value
        for name, value in headers.items()
        if not (lower := name.lower()).startswith(prefixes) and lower != "content-type"
    }
