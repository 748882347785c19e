"""How a record travels in an SQS message, and back. Nothing is lost on the way.

| part | where |
|---|---|
| body | `MessageBody`; what SQS cannot carry (empty, no UTF-8, control characters) as base64, with `relay-encoding` |
| key | attribute `relay-key` |
| header | an attribute of its name; a value that SQS cannot carry as JSON text, of type `String.json` |
| headers beyond ten attributes, or whose names SQS refuses | together in attribute `relay-headers`, a JSON object |

Limits: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

MOST_ATTRIBUTES = 10
KEY, HEADERS, ENCODING = "relay-key", "relay-headers", "relay-encoding"
_OURS = frozenset({KEY, HEADERS, ENCODING})
_FIRST = ("relay-id", "relay-outbox", "relay-created-at")
_EMPTY_BODY = "-"
_JSON = "String.json"

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAME = re.compile(r"(?!(?i:aws|amazon)\.)[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\Z")
_LONGEST_NAME = 256
_LONGEST_ID = 128
_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

Attributes = dict[str, dict[str, Any]]


def pack(body: bytes, key: str | None, headers: Mapping[str, str]) -> tuple[str, Attributes]:
    """`MessageBody` and `MessageAttributes`."""
    text, encoding = _packed_body(body)
    attributes: Attributes = {}
    if encoding is not None:
        attributes[ENCODING] = _attribute(encoding)
    if key is not None:
        attributes[KEY] = _attribute(key)
    carried = [name for name in headers if _can_be_a_name(name)]
    if len(carried) < len(headers) or len(attributes) + len(carried) > MOST_ATTRIBUTES:
        carried.sort(key=lambda name: name not in _FIRST)
        carried = carried[: MOST_ATTRIBUTES - len(attributes) - 1]
        rest = {name: value for name, value in headers.items() if name not in carried}
        attributes[HEADERS] = _attribute(json.dumps(rest))
    for name in carried:
        attributes[name] = _attribute(headers[name])
    return text, attributes


def unpack(text: str, attributes: Mapping[str, Mapping[str, Any]]) -> tuple[bytes, str | None, dict[str, str]]:
    """(body, key, headers) of a message of any sender. What only looks like ours is taken as it is."""
    values = {name: _value(attribute) for name, attribute in attributes.items()}
    encoding, key, packed = values.pop(ENCODING, None), values.pop(KEY, None), values.pop(HEADERS, None)
    headers = {**values, **_unpacked_headers(packed)}
    return _unpacked_body(text, encoding), key, headers


def size_bytes(text: str, attributes: Attributes) -> int:
    """As SQS counts: body, and names, types and values of the attributes."""
    size = _length(text)
    for name, attribute in attributes.items():
        size += len(name) + len(attribute["DataType"]) + _length(attribute["StringValue"])
    return size


def fifo_id(text: str) -> str:
    """A group or deduplication id that SQS takes: the text itself where it can be, another for each text otherwise."""
    escaped = quote(text, safe=_PUNCTUATION, errors="surrogatepass")
    if escaped == text and len(text) <= _LONGEST_ID:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{escaped[: _LONGEST_ID - len(digest) - 1]}~{digest}"


def _packed_body(body: bytes) -> tuple[str, str | None]:
    if not body:
        return _EMPTY_BODY, "empty"
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = "\0"
    if _NOT_IN_XML.search(text):
        return base64.b64encode(body).decode(), "base64"
    return text, None


def _unpacked_body(text: str, encoding: str | None) -> bytes:
    if encoding == "empty":
        return b""
    if encoding == "base64":
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error:
            pass
    return text.encode()


def _can_be_a_name(name: str) -> bool:
    return len(name) <= _LONGEST_NAME and bool(_NAME.match(name)) and name not in _OURS


def _attribute(value: str) -> dict[str, Any]:
    if value and not _NOT_IN_XML.search(value):
        return {"DataType": "String", "StringValue": value}
    return {"DataType": _JSON, "StringValue": json.dumps(value)}


def _value(attribute: Mapping[str, Any]) -> str:
    if "BinaryValue" in attribute:
        return base64.b64encode(attribute["BinaryValue"]).decode()
    value = str(attribute.get("StringValue", ""))
    if attribute.get("DataType") == _JSON:
        try:
            decoded = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return decoded if isinstance(decoded, str) else value
    return value


def _unpacked_headers(packed: str | None) -> dict[str, str]:
    if packed is None:
        return {}
    try:
        found = json.loads(packed)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        return {HEADERS: packed}
    return found


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
