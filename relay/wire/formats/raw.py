"""The wire format `raw`: the body is the payload and nothing else."""

from collections.abc import Iterable

from relay.models import Message, Received, Record
from relay.wire.formats.base import (
    EMPTY_HEADERS,
    Encoder,
    MakeRecords,
    Origin,
    Parts,
    own_texts,
    payload_as_body,
    relay_headers,
)

_NONE: dict[str, str] = {}


def encoder(origin: Origin) -> Encoder:
    """The payload as it was published."""
    return Encoder(payload_as_body, relay_headers(origin), batch=lambda subject: _batch(origin, subject))


def _batch(origin: Origin, subject: str) -> MakeRecords:
    """Most pipelines by far are of this kind: without a call for each message, which would cost more than the rest."""
    outbox, new = origin.outbox, tuple.__new__

    def bodies(messages: Iterable[Message]) -> list[Record]:
        return [
            new(Record, (number, f"{outbox}:{number}", subject, key, payload, _NONE, created_at))
            for number, key, payload, _, created_at in messages
        ]

    def records(messages: Iterable[Message]) -> list[Record]:
        return [
            new(
                Record,
                (number, id_, subject, key, payload, made if own == EMPTY_HEADERS else own_texts(own) | made, at),
            )
            for number, key, payload, own, at in messages
            for id_ in (f"{outbox}:{number}",)
            for made in ({"relay-id": id_, "relay-outbox": outbox, "relay-created-at": at},)
        ]

    return records if origin.keeps_headers else bodies


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
