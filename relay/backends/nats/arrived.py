"""A message as it came from JetStream, and what it is as a received message. Needs no connection."""

from typing import TYPE_CHECKING, NamedTuple

from relay.models import Received
from relay.wire.storable import storable_text

if TYPE_CHECKING:
    from nats.aio.msg import Msg

UNREADABLE = ""
"""The name under which `client.py` keeps what is wrong with headers that cannot be read; no header has it."""


class Token(NamedTuple):
    """What an acknowledgement needs; it is good on any connection."""

    sequence: int
    """In the stream."""
    reply: str


class Arrived(NamedTuple):
    message: "Msg"
    sequence: int
    default_id: str
    partition: str
    position: str

    def converted(self) -> Received:
        headers = self.message.headers or {}
        if UNREADABLE in headers:
            raise ValueError(f"its headers cannot be read: {headers[UNREADABLE]}")
        if headers:
            headers = {name: storable_text(value) for name, value in headers.items()}
        return self.bare()._replace(id=headers.get("Nats-Msg-Id") or self.default_id, headers=headers)

    def bare(self) -> Received:
        message = self.message
        token = Token(self.sequence, message.reply)
        return Received(self.default_id, message.data, {}, None, message.subject, self.partition, self.position, token)
