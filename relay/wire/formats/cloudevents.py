"""The wire format `cloudevents`: CloudEvents 1.0.2, binary in the headers of a transport or structured in JSON.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md and its bindings for Kafka, HTTP, NATS and AMQP.
"""

import base64
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

from relay.models import Message, Received
from relay.wire.byte_order_mark import text_of
from relay.wire.formats.base import Encoder, Invalid, Origin, Parts, filled, payload_as_body, relay_headers
from relay.wire.json_text import encode_object, members, scalar, string
from relay.wire.templates import Headers, encode_json, header_text

PREFIXES = {"kafka": "ce_", "http": "ce-", "nats": "ce-", "amqp": "cloudEvents_"}
"""What the names of attributes begin with in the headers of each binding. The underscore of AMQP is the one that its
binding prefers."""

# In lower case, as a receiver compares them. The colon is the older separator of AMQP.
_RECEIVED_PREFIXES = ("ce_", "ce-", "cloudevents_", "cloudevents:")

PERCENT_ENCODED = frozenset({"http", "nats"})
"""The bindings whose header values are percent-encoded."""

_PERCENT_ENCODED_PREFIX = "ce-"

_STRUCTURED = "application/cloudevents"
STRUCTURED_TYPE = f"{_STRUCTURED}+json"

# Every printable ASCII character except space, double quote and percent: HTTP binding, section 3.1.3.2.
_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')

_EXTENSION = re.compile(r"[a-z0-9]{1,20}")
_RESERVED = frozenset({"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"})
_OWN_COLUMNS = frozenset({"specversion", "id", "source", "type"})
_DATA_TYPE = "application/json"

Attributes = Callable[[str, Message, Headers], dict[str, str | int | bool]]


def encoder(origin: Origin) -> Encoder:
    """Binary mode by the sink's binding; structured mode if it has none."""
    if origin.binding is None or not origin.keeps_headers:
        return structured_encoder(origin)
    binding, prefix = origin.binding, PREFIXES[origin.binding]
    attributes, beside = _attributes(origin), _headers_beside(origin)
    encodes = binding in PERCENT_ENCODED

    def headers(dedup_id: str, message: Message, own: Headers) -> dict[str, str]:
        made = beside(dedup_id, message, own)
        for name, value in attributes(dedup_id, message, own).items():
            text = header_text(value)
            made[prefix + name] = quote(text, safe=_SAFE) if encodes else text
        made["content-type"] = _DATA_TYPE
        return made

    return Encoder(payload_as_body, headers)


def structured_encoder(origin: Origin) -> Encoder:
    """The event as one JSON object, the payload in it as it was published."""
    attributes, beside = _attributes(origin), _headers_beside(origin)
    outbox = origin.outbox

    def body(message: Message, own: Headers) -> bytes:
        event = attributes(f"{outbox}:{message.id}", message, own)
        event["datacontenttype"] = _DATA_TYPE
        return b"".join((encode_object(event)[:-1], b',"data":', message.payload, b"}"))

    def headers(dedup_id: str, message: Message, own: Headers) -> dict[str, str]:
        made = beside(dedup_id, message, own)
        made["content-type"] = STRUCTURED_TYPE
        return made

    return Encoder(body, headers, reads_headers=True)


def _attributes(origin: Origin) -> Attributes:
    """What makes the attributes of an event, except `datacontenttype`: in binary mode that is the content type."""
    source_of, type_of = filled(origin.cloudevents_source, origin), filled(origin.cloudevents_type, origin)
    has_partitionkey = origin.binding == "kafka"

    def attributes(dedup_id: str, message: Message, own: Headers) -> dict[str, str | int | bool]:
        event: dict[str, str | int | bool] = {
            "specversion": "1.0",
            "id": dedup_id,
            "source": source_of(message, own) or f"/tide-relay/{origin.outbox}",
            "type": type_of(message, own) or origin.outbox,
            "time": message.created_at,
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


def _headers_beside(origin: Origin) -> Callable[[str, Message, Headers], dict[str, str]]:
    """As `relay_headers`, without those that a receiver would take for attributes of the event."""
    relay = relay_headers(origin)

    def headers(dedup_id: str, message: Message, own: Headers) -> dict[str, str]:
        made = relay(dedup_id, message, own)
        if not own:
            return made
        return {
            name: text
            for name, text in made.items()
            if not (lower := name.lower()).startswith(_RECEIVED_PREFIXES) and lower != "content-type"
        }

    return headers


def decode(received: Received, text: str) -> Parts:
    """Binary or structured mode, whichever the message has. A batch is refused: one message must be one event."""
    headers = {name.lower(): value for name, value in received.headers.items()}
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not content_type.startswith(_STRUCTURED):
        for prefix in _RECEIVED_PREFIXES:
            if f"{prefix}specversion" in headers:
                return _binary_parts(received, text, prefix, content_type)
    elif content_type == f"{_STRUCTURED}-batch+json":
        raise Invalid("cloudevents_batch", "the message is a batch of CloudEvents; send each event in its own message")
    elif content_type not in (_STRUCTURED, f"{_STRUCTURED}+json"):
        raise Invalid("bad_cloudevent", f"the event format {content_type[:60]} is not supported; send JSON")
    return _structured_parts(received, text)


def _binary_parts(received: Received, text: str, prefix: str, content_type: str) -> Parts:
    decoded = _percent_decoded if prefix == _PERCENT_ENCODED_PREFIX else str
    attributes: dict[str, str] = {}
    beside: dict[str, str] = {}
    for name, value in received.headers.items():
        if name[: len(prefix)].lower() == prefix:
            attributes[name[len(prefix) :].lower()] = decoded(value)
        else:
            beside[name] = value
    # Without data there is nothing that could be of a type.
    payload = encode_json(text) if text and not _is_json(content_type) else text or "null"
    return _parts(received, attributes, beside, payload)


def _structured_parts(received: Received, text: str) -> Parts:
    try:
        found = members(text)
    except ValueError as error:
        if text.lstrip().startswith("["):
            raise Invalid("cloudevents_batch", "the body is a list; send each event in its own message") from None
        raise Invalid("bad_cloudevent", f"neither the headers nor the body are a CloudEvent: {error}") from None
    data, encoded = found.pop("data", None), found.pop("data_base64", None)
    attributes = {name: value for name, text in found.items() if (value := scalar(text)) is not None}
    if data is None and encoded is not None:
        data = _from_base64(encoded, attributes.get("datacontenttype", ""))
    typed = {name: text for name, text in found.items() if name in attributes}
    return _parts(received, attributes, received.headers, data or "null", typed)


def _parts(
    received: Received,
    attributes: dict[str, str],
    beside: dict[str, str],
    payload: str,
    typed: dict[str, str] | None = None,
) -> Parts:
    """`typed` has the attributes as JSON text, if they have types."""
    missing = [name for name in ("specversion", "id", "source", "type") if not attributes.get(name)]
    if missing:
        raise Invalid("bad_cloudevent", f"the event has no {', '.join(missing)}")
    if not attributes["specversion"].startswith("1."):
        version = attributes["specversion"][:20]
        raise Invalid("bad_cloudevent", f"the event has specversion {version}; only 1.0 is supported")
    headers: dict[str, Any] = dict(beside)
    headers |= {name: value for name, value in attributes.items() if name not in _OWN_COLUMNS}
    headers_text = None
    if typed is not None:
        as_json = {name: encode_json(value) for name, value in beside.items()}
        as_json |= {name: text for name, text in typed.items() if name not in _OWN_COLUMNS}
        headers_text = "{" + ",".join(f"{encode_json(name)}:{text}" for name, text in as_json.items()) + "}"
    key = received.key or attributes.get("partitionkey") or attributes.get("subject")
    sequence = attributes.get("sequence", "")
    return Parts(
        attributes["id"],
        attributes["type"],
        attributes["source"],
        key,
        int(sequence) if sequence.isascii() and sequence.isdigit() and len(sequence) < 19 else None,
        payload,
        headers,
        headers_text,
    )


def _is_json(content_type: str) -> bool:
    """Whether data of this type is JSON; data without a type is."""
    return content_type in ("", "text/json") or content_type.endswith(("/json", "+json"))


def _percent_decoded(value: str) -> str:
    """As the HTTP binding says: first remove the quotes, if the sender used any, then decode percent signs."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return unquote(value)


def _from_base64(slice_: str, content_type: str) -> str:
    """Binary data as JSON text: as it is if it is JSON, as a string if it is other text."""
    try:
        data = base64.b64decode(string(slice_) or "", validate=True)
    except ValueError:  # not ASCII, or not base64
        raise Invalid("bad_cloudevent", "data_base64 of the event is not base64") from None
    try:
        text = text_of(data)
    except UnicodeDecodeError as error:
        raise Invalid("not_utf8", f"byte {error.start + 1} of data_base64 is not UTF-8") from None
    return (text or "null") if _is_json(content_type.partition(";")[0].strip().lower()) else encode_json(text)
