"""Reading CloudEvents 1.x: binary by any binding, or structured in JSON. The way back of `cloudevents.py`."""

import base64
import binascii
from typing import Any
from urllib.parse import unquote

from relay.models import Received
from relay.wire.formats.decode_formats import Invalid, Parts
from relay.wire.json_text import members, scalar, string
from relay.wire.templates import encode_json

# Longest first where one begins with another. The colon is the older separator of AMQP.
_PREFIXES = ("ce_", "ce-", "cloudevents_", "cloudevents:")
_PERCENT_ENCODED = "ce-"

_STRUCTURED = "application/cloudevents"
_OWN_COLUMNS = frozenset({"specversion", "id", "source", "type"})


def cloudevents(received: Received, text: str) -> Parts:
    """Whichever mode the message has. A batch is refused: one message must be one event."""
    headers = {name.lower(): value for name, value in received.headers.items()}
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not content_type.startswith(_STRUCTURED):
        for prefix in _PREFIXES:
            if f"{prefix}specversion" in headers:
                return _binary(received, text, prefix, content_type)
    elif content_type == f"{_STRUCTURED}-batch+json":
        raise Invalid("cloudevents_batch", "the message is a batch of CloudEvents; send each event by itself")
    elif content_type not in (_STRUCTURED, f"{_STRUCTURED}+json"):
        raise Invalid("bad_cloudevent", f"the event format {content_type[:60]} is not supported; send JSON")
    return _structured(received, text)


def _binary(received: Received, text: str, prefix: str, content_type: str) -> Parts:
    attributes: dict[str, str] = {}
    beside: dict[str, str] = {}
    for name, value in received.headers.items():
        if name[: len(prefix)].lower() == prefix:
            attributes[name[len(prefix) :].lower()] = _percent_decoded(value) if prefix == _PERCENT_ENCODED else value
        else:
            beside[name] = value
    payload = (text or "null") if _is_json(content_type) else encode_json(text)
    return _parts(received, attributes, beside, payload)


def _structured(received: Received, text: str) -> Parts:
    try:
        found = members(text)
    except ValueError as error:
        if text.lstrip().startswith("["):
            raise Invalid("cloudevents_batch", "the body is a list; send each event by itself") from None
        raise Invalid("bad_cloudevent", f"neither headers nor body are a CloudEvent: {error}") from None
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
    """`typed` has the attributes as JSON text, where they have types."""
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
    """By the HTTP binding: first quotes, where a sender used them, then percent signs."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return unquote(value)


def _from_base64(slice_: str, content_type: str) -> str:
    """Binary data as JSON text: as it is if it is JSON, as a string if it is other text."""
    try:
        data = base64.b64decode(string(slice_) or "", validate=True)
    except binascii.Error:
        raise Invalid("bad_cloudevent", "data_base64 of the event is not base64") from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Invalid("not_utf8", f"byte {error.start + 1} of data_base64 is not UTF-8") from None
    return (text or "null") if _is_json(content_type.partition(";")[0].strip().lower()) else encode_json(text)
