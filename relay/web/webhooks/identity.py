"""By what a message is known: only by what its sender has signed, unless the operator names a header to believe.

A recorded request can be sent again with any other header. So where a scheme signs only the body, the event id is the
digest of the body, and what a wire format would take for the event id from a header is replaced.
"""

import hashlib
from collections.abc import Mapping
from typing import Literal

from relay.backends.webhook.config import WebhookSourceConfig
from relay.backends.webhook.signatures import standard_headers
from relay.wire.byte_order_mark import text_of
from relay.wire.json_text import members, string

IdFrom = Literal["header", "member", "digest"]
"""A header; the member `id` of the body; all of the body."""

_CLOUDEVENTS = ("ce-", "ce_", "cloudevents_", "cloudevents:")
_ID_HEADERS = {
    "cloudevents": tuple(f"{prefix}id" for prefix in _CLOUDEVENTS),
    "cloudevents_structured": tuple(f"{prefix}id" for prefix in _CLOUDEVENTS),
    "debezium": ("id",),
}
"""Where a wire format finds an event id outside of the body, in lower case."""

_EVENT = frozenset({"specversion", "id", "source", "type"})
_WHOLE = {"cloudevents": _EVENT, "cloudevents_structured": _EVENT, "debezium": frozenset({"id", "payload"})}
"""The members that a body has if it is a whole event, with its id."""


def id_from(config: WebhookSourceConfig) -> IdFrom:
    if config.idempotency_header is not None or config.scheme == "standard":
        return "header"
    return "member" if config.scheme == "stripe" else "digest"


def id_header(config: WebhookSourceConfig) -> str:
    """In lower case; the one of `standard` is signed, any other is believed because it is configured."""
    return (config.idempotency_header or "webhook-id").lower()


def event_id(config: WebhookSourceConfig, headers: Mapping[str, str], body: bytes) -> str:
    """Empty if there is none."""
    match id_from(config):
        case "header":
            named = standard_headers(headers) if config.scheme == "standard" else headers
            return named.get(id_header(config), "")
        case "member":
            return string(_members(body).get("id", "")) or ""
        case "digest":
            return f"sha256:{hashlib.sha256(body).hexdigest()}"


def believed(wire_format: str, headers: dict[str, str], body: bytes, known_as: str) -> dict[str, str]:
    """The headers, such that the wire format finds no other event id in them."""
    present = [name for name in _ID_HEADERS.get(wire_format, ()) if name in headers]
    if not present:
        return headers
    if _members(body).keys() >= _WHOLE[wire_format]:
        # An event whole in the signed body: a header must not make it another one.
        return {name: value for name, value in headers.items() if name != "id" and not name.startswith(_CLOUDEVENTS)}
    return headers | dict.fromkeys(present, known_as)


def _members(body: bytes) -> Mapping[str, str]:
    """Of a JSON object, as JSON texts; none if it is no such object."""
    try:
        return members(text_of(body))
    except (ValueError, RecursionError):
        return {}
