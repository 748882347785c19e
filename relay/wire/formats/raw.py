"""The wire format `raw`: the body is the payload and nothing else."""

from relay.models import Received
from relay.wire.formats.base import Encoder, Origin, Parts, payload_as_body, relay_headers


def encoder(origin: Origin) -> Encoder:
    """The payload as it was published."""
    return Encoder(payload_as_body, relay_headers(origin))


def decode(received: Received, text: str) -> Parts:
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
