"""Deliveries as they come from the socket: frames put together, and properties and headers read as far as they can be.

py-amqp's own reader raises on a property that is not UTF-8 or a header of an unknown type, which makes the connection
useless: one such message would stop its queue. Here what cannot be read is left out, and the body arrives.
"""

import base64
import contextlib
import json
import struct
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from amqp import spec  # type: ignore[import-untyped]
from amqp.exceptions import FrameSyntaxError  # type: ignore[import-untyped]
from amqp.serialization import loads  # type: ignore[import-untyped]

from relay.backends.rabbitmq.config import KEY_HEADER
from relay.models import Received
from relay.wire.storable import storable_text

_SIGNATURE = struct.Struct(">HH")
_CONTENT = struct.Struct(">HHQH")  # class, weight, size of the body, flags of the properties that follow
_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8

# Flag, name, kind; in the order in which they come. Those with a header's name become headers.
_PROPERTIES = (
    (0x8000, "content-type", "short"),
    (0x4000, "content-encoding", "short"),
    (0x2000, "", "table"),
    (0x1000, "", "octet"),  # delivery mode
    (0x0800, "", "octet"),  # priority
    (0x0400, "correlation-id", "short"),
    (0x0200, "reply-to", "short"),
    (0x0100, "", "short"),  # expiration
    (0x0080, "message-id", "short"),
    (0x0040, "", "long"),  # timestamp
    (0x0020, "type", "short"),
    (0x0010, "", "short"),  # user
    (0x0008, "app-id", "short"),
    (0x0004, "", "short"),  # cluster
)
_FIXED_BYTES = {"octet": 1, "long": 8}
# py-amqp calls itself for each level of a table, and so does the writer of JSON.
_UNREADABLE = (FrameSyntaxError, struct.error, ValueError, OverflowError, OSError, IndexError, RecursionError)


class Delivery(NamedTuple):
    """A message as it came from the socket; its header is not read yet."""

    queue: str
    tag: int
    """Means something on the channel that it came by, and nowhere else."""
    routing_key: str
    header: bytes
    body: bytes
    era: object = None
    """The channel, as its consumer counts them."""

    def converted(self) -> Received:
        headers = _headers(self.header)
        message_id = headers.pop("message-id", "")
        received = self.bare()
        return received._replace(id=message_id or received.id, headers=headers, key=headers.pop(KEY_HEADER, None))

    def bare(self) -> Received:
        # RabbitMQ has no id of its own: a delivery tag is new each time that a message comes.
        made = f"{self.queue}/{uuid.uuid4().hex}"
        return Received(made, self.body, {}, None, subject=self.routing_key, token=(self.era, self.tag))


class Deliveries:
    """The reader of one connection. Give `handler` to py-amqp; what arrives goes to `on_message`."""

    def __init__(self, queue: str, on_message: Callable[[Delivery], None]) -> None:
        self._queue = queue
        self._on_message = on_message
        self._method = b""
        self._header = b""
        self._missing_bytes = 0
        self._pieces: list[bytes] = []

    def handler(
        self, connection: Any, callback: Callable[[int, tuple[int, int], bytes, None], None]
    ) -> Callable[[tuple[int, int, bytes]], bool]:
        def on_frame(frame: tuple[int, int, bytes]) -> bool:
            kind, channel, payload = frame
            connection.bytes_recv += 1
            if kind == _METHOD:
                signature = _SIGNATURE.unpack_from(payload)
                if signature != spec.Basic.Deliver:
                    callback(channel, signature, payload, None)
                    return True
                self._method = payload
            elif kind == _HEADER:
                self._header = payload
                self._missing_bytes = _CONTENT.unpack_from(payload)[2]
            elif kind == _BODY:
                self._pieces.append(payload)
                self._missing_bytes -= len(payload)
            if kind in {_HEADER, _BODY} and self._missing_bytes <= 0:
                self._finish()
                return True
            return False

        return on_frame

    def _finish(self) -> None:
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces = []
        tag, routing_key = _method(self._method)
        self._on_message(Delivery(self._queue, tag, routing_key, self._header, body))


def _method(payload: bytes) -> tuple[int, str]:
    """(delivery tag, routing key) of a basic.deliver."""
    at = _SIGNATURE.size
    at += 1 + payload[at]  # the consumer's tag
    (tag,) = struct.unpack_from(">Q", payload, at)
    at += 9  # the tag, and whether it was delivered before
    at += 1 + payload[at]  # the exchange
    return tag, _text(payload[at + 1 : at + 1 + payload[at]])


def _headers(payload: bytes) -> dict[str, str]:
    """The message's own headers, and over them those properties that have a header's name."""
    flags = _CONTENT.unpack_from(payload)[3]
    at = _CONTENT.size
    table: dict[str, str] = {}
    properties: dict[str, str] = {}
    for flag, name, kind in _PROPERTIES:
        if not flags & flag:
            continue
        if kind == "short":
            if name:
                properties[name] = _text(payload[at + 1 : at + 1 + payload[at]])
            at += 1 + payload[at]
        elif kind == "table":
            table = _table(payload, at)
            at += 4 + int.from_bytes(payload[at : at + 4], "big")
        else:
            at += _FIXED_BYTES[kind]
    table.pop("message-id", None)
    return table | properties


def _table(payload: bytes, at: int) -> dict[str, str]:
    try:
        values, _ = loads("F", payload, at)
    except _UNREADABLE:
        return {}
    table: dict[str, str] = {}
    for name, value in values[0].items():
        with contextlib.suppress(*_UNREADABLE):
            table[_text(name)] = _text(value)
    return table


def _text(value: Any) -> str:
    """A header's value as text: text as it is, bytes as UTF-8 as far as they are, everything else as compact JSON.

    Base64 where PostgreSQL could not store it.
    """
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, bytes):
        return storable_text(value.decode(errors="replace"))
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
