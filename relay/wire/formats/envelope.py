"""The wire format `envelope`: one JSON object of ours around the payload, with everything that a message has."""

from typing import Any

from relay.models import Message, Received
from relay.wire.formats.base import Encoder, Invalid, Origin, Parts, relay_headers
from relay.wire.json_text import members, string, values
from relay.wire.templates import Headers, encode_json, header_text


def encoder(origin: Origin) -> Encoder:
    """Version 1."""
    name = encode_json(origin.outbox)
    begin = f'{{"version":1,"id":{name[:-1]}:'.encode()
    outbox_field = f'","outbox":{name},"message_id":'.encode()

    def body(message: Message, _own: Headers) -> bytes:
        number = b"%d" % message.id
        key = "null" if message.key is None else encode_json(message.key)
        fields = f',"key":{key},"created_at":"{message.created_at}","headers":'.encode()
        return b"".join(
            (begin, number, outbox_field, number, fields, message.headers, b',"payload":', message.payload, b"}")
        )

    return Encoder(body, relay_headers(origin))


def decode(_received: Received, text: str) -> Parts:
    """Version 1."""
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
    headers = _headers(headers_text)
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


def _headers(text: str) -> dict[str, Any]:
    if text == "{}":
        return {}
    try:
        return values(text)
    except ValueError:  # the text itself is judged by PostgreSQL
        return {}


def _text(value: Any) -> str | None:
    """A string or a number."""
    text = header_text(value)
    return text if isinstance(value, str) or text[0] in "-0123456789" else None


def _bigint(text: str | None) -> int | None:
    if text is None or not text.isdigit() or len(text) > 19:
        return None
    number = int(text)
    return number if number < 2**63 else None
