"""A record as the bytes of AMQP's frames: method, header and body of one `basic.publish`.

Why not py-amqp's encoder: it builds the frames of each message from a description of every field. Here, what is the
same for every message is built once. The bare loop of `benchmarks/backends/rabbitmq.py` publishes with py-amqp
(`make bench ARGS="--only rabbitmq"` compares the two). The layout is that of the AMQP 0-9-1 specification, sections 2.3
and 4.2, with RabbitMQ's types of table values.
"""

import struct
from collections.abc import Mapping

from relay.backends.common.short_cache import cached_if_short
from relay.backends.rabbitmq.config import KEY_HEADER
from relay.models import Record

_PUBLISH = struct.pack(">HHH", 60, 40, 0)  # class basic, method publish, a reserved field
_HEAD = struct.Struct(">BHI")
_METHOD, _HEADER, _BODY = 1, 2, 3
_END = b"\xce"
_FRAME_OVERHEAD_BYTES = 8
_CONTENT = struct.Struct(">HHQH")  # class, weight, size of the body, flags of the properties that follow
# content_type, headers, delivery_mode, message_id, timestamp, app_id: in this order.
_PROPERTIES = 0x8000 | 0x2000 | 0x1000 | 0x0080 | 0x0040 | 0x0008
_LONGEST_SHORT_BYTES = 255
_CONTENT_TYPE = "content-type"

COMMANDS = frozenset({"CC", "BCC"})
"""Headers that tell RabbitMQ to deliver elsewhere too: not for messages to give, and refused as text by the server."""

HeaderValue = str | bool | int | float


class Unsendable(Exception):
    """The record can never be sent."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Encoder:
    """For one channel of one connection, and one exchange."""

    def __init__(
        self,
        exchange: str,
        *,
        channel: int,
        frame_max: int,
        mandatory: bool,
        persistent: bool,
        headers: Mapping[str, HeaderValue],
    ) -> None:
        self._channel = channel
        self._room_bytes = frame_max - _FRAME_OVERHEAD_BYTES
        self._exchange = _short(exchange)
        self._bits = b"\x01" if mandatory else b"\x00"
        self._delivery_mode = b"\x02" if persistent else b"\x01"
        self._app_id = _short("tide-relay")
        self._fixed = {name: _short(name) + _value(value) for name, value in headers.items()}
        self._method = cached_if_short(self._method_frame)

    def frames(self, record: Record, seconds: int) -> bytes:
        """`seconds` of the epoch go into the message's timestamp. Raises Unsendable."""
        return self.framed(record.subject, self._header(record, seconds), record.body)

    def framed(self, routing_key: str, header: bytes, body: bytes) -> bytes:
        """The frames of a message with a content header that was made. Raises Unsendable."""
        if len(header) > self._room_bytes:
            raise Unsendable("too_large", f"{len(header)} bytes of headers; the server takes {self._room_bytes}")
        head = self._method(routing_key) + _HEAD.pack(_HEADER, self._channel, len(header)) + header + _END
        if not body:
            return head
        if len(body) <= self._room_bytes:
            return head + _HEAD.pack(_BODY, self._channel, len(body)) + body + _END
        pieces = [head]
        for begin in range(0, len(body), self._room_bytes):
            piece = body[begin : begin + self._room_bytes]
            pieces += (_HEAD.pack(_BODY, self._channel, len(piece)), piece, _END)
        return b"".join(pieces)

    def _method_frame(self, routing_key: str) -> bytes:
        try:
            method = _PUBLISH + self._exchange + _short(routing_key) + self._bits
        except ValueError as error:
            raise Unsendable("bad_routing_key", f"routing key {routing_key[:80]!r}: {error}") from None
        return _HEAD.pack(_METHOD, self._channel, len(method)) + method + _END

    def _header(self, record: Record, seconds: int) -> bytes:
        content_type = "application/json"
        table = self._fixed
        if record.headers:
            content_type = record.headers.get(_CONTENT_TYPE, content_type)
            table = table | _entries(record.headers)
        if record.key is not None:
            table = table | _entries({KEY_HEADER: record.key})
        headers = b"".join(table.values())
        try:
            parts = (
                _CONTENT.pack(60, 0, len(record.body), _PROPERTIES),
                _content_type(content_type),
                struct.pack(">I", len(headers)),
                headers,
                self._delivery_mode,
                _short(record.dedup_id),
                struct.pack(">Q", seconds),
                self._app_id,
            )
        except ValueError as error:
            raise Unsendable("bad_header", f"content-type or id: {error}") from None
        return b"".join(parts)


def _entries(headers: Mapping[str, str]) -> dict[str, bytes]:
    entries = {}
    for name, value in headers.items():
        if name in COMMANDS or name == _CONTENT_TYPE:
            continue
        try:
            encoded = value.encode()
            entries[name] = _name(name) + len(encoded).to_bytes(4, "big") + encoded
        except ValueError as error:
            raise Unsendable("bad_header", f"header {name[:80]!r}: {error}") from None
    return entries


def _short(text: str) -> bytes:
    """A short string. Raises ValueError where it is too long, or no Unicode."""
    encoded = text.encode()
    if len(encoded) > _LONGEST_SHORT_BYTES:
        raise ValueError(f"{len(encoded)} bytes; AMQP takes {_LONGEST_SHORT_BYTES}")
    return bytes((len(encoded),)) + encoded


_content_type = cached_if_short(_short, size=64)


@cached_if_short
def _name(name: str) -> bytes:
    """A header's name, and the type of a text value, which follows."""
    return _short(name) + b"S"


def _value(value: HeaderValue) -> bytes:
    """A value of a table, with its type."""
    if isinstance(value, bool):
        return b"t" + bytes((value,))
    if isinstance(value, int):
        return b"l" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"d" + struct.pack(">d", value)
    encoded = value.encode()
    return b"S" + struct.pack(">I", len(encoded)) + encoded
