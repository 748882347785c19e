"""py-amqp's connection with three things changed: one time limit over all of an operation, buffered reading, our TLS.

Why not py-amqp's own: it reads each frame with three system calls and sets the socket's timeout before and after. Here
a frame is cut from what one `recv` brought. Its time limits count for single reads; here every read and write ends at a
deadline. The bare loop of `benchmarks/backends/rabbitmq.py` uses py-amqp's transport (`make bench ARGS="--only
rabbitmq"` compares the two).
"""

import contextlib
import socket
import ssl
import struct
import time
from typing import Any

import amqp  # type: ignore[import-untyped]
from amqp.exceptions import UnexpectedFrame  # type: ignore[import-untyped]
from amqp.transport import SSLTransport, TCPTransport  # type: ignore[import-untyped]

_READ_BYTES = 64 * 1024
# RabbitMQ's frame_max is 128 KiB unless configured. A larger size is not a frame: another protocol answers.
_LARGEST_FRAME_BYTES = 16 * 1024 * 1024
_HEAD = struct.Struct(">BHI")
_FRAME_END = 0xCE

_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class TimeLimit:
    """Until when an operation may last, shared by a connection and its transport."""

    def __init__(self) -> None:
        self.ends_at = 0.0

    def begin(self, seconds: float) -> None:
        self.ends_at = time.monotonic() + seconds

    def remaining(self) -> float:
        # Never zero: that would mean not blocking, which ends differently.
        return max(0.001, self.ends_at - time.monotonic())


class _Buffered:
    """Mixed into both transports of py-amqp: reading and writing under the time limit."""

    sock: Any
    limit: TimeLimit
    _data = b""
    _at = 0

    def next_frame(self, seconds: float) -> tuple[int, int, bytes] | None:
        """(type, channel, payload) of the next frame; None if it is not there in so many seconds.

        What has arrived of it by then is kept. Raises OSError when the connection is lost.
        """
        frame = self._cut()
        if frame is None:
            deadline = time.monotonic() + seconds
            while frame is None:
                if not self._fill(max(0.0, deadline - time.monotonic())):
                    return None
                frame = self._cut()
        return frame

    def write(self, data: Any) -> None:
        """Raises OSError, TimeoutError among them, after which the connection is of no use: half a frame is out."""
        sock = self._open_socket()
        sock.settimeout(self.limit.remaining())
        sock.sendall(data)

    def _cut(self) -> tuple[int, int, bytes] | None:
        at = self._at
        have = len(self._data) - at
        if have < _HEAD.size:
            return None
        kind, channel, size = _HEAD.unpack_from(self._data, at)
        if size > _LARGEST_FRAME_BYTES:
            raise UnexpectedFrame("the answer is not AMQP 0-9-1")
        end = at + _HEAD.size + size
        if have <= _HEAD.size + size:
            return None
        if self._data[end] != _FRAME_END:
            raise UnexpectedFrame("a frame of AMQP has no end")
        self._at = end + 1
        return kind, channel, self._data[at + _HEAD.size : end]

    def _fill(self, seconds: float) -> bool:
        sock = self._open_socket()
        sock.settimeout(seconds)
        try:
            data = sock.recv(_READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except TimeoutError as error:
            if error.errno is not None:  # from the system: the other side is gone
                raise
            return False
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self._data = self._data[self._at :] + data
        self._at = 0
        return True

    def _open_socket(self) -> Any:
        if self.sock is None:
            raise ConnectionResetError("the connection is closed")
        return self.sock

    def _shutdown_transport(self) -> None:
        """No close_notify of TLS: it would wait for the server's."""


class _Tcp(_Buffered, TCPTransport):  # type: ignore[misc]
    pass


class _Tls(_Buffered, SSLTransport):  # type: ignore[misc]
    def _wrap_socket(self, sock: Any, context: ssl.SSLContext, server_hostname: str) -> Any:
        return context.wrap_socket(sock, server_hostname=server_hostname, do_handshake_on_connect=False)


class Channel(amqp.Channel):  # type: ignore[misc]
    def _do_revive(self) -> None:
        """A channel that the server closed stays closed: the caller opens everything again."""
        self.is_open = False


class Connection(amqp.Connection):  # type: ignore[misc]
    """`limit` bounds everything that is not told how long to wait."""

    Channel = Channel
    negotiate_capabilities = amqp.Connection.negotiate_capabilities | {"basic.nack": True, "publisher_confirms": True}

    def __init__(self, limit: TimeLimit, **options: Any) -> None:
        self.limit = limit
        super().__init__(socket_settings=_socket_settings(), **options)

    def Transport(self, host: str, connect_timeout: float, ssl: Any = False, *_: Any, **options: Any) -> Any:  # noqa: N802
        transport = (_Tls if ssl else _Tcp)(host, connect_timeout=connect_timeout, ssl=ssl, **options)
        transport.limit = self.limit
        return transport

    def blocking_read(self, timeout: float | None = None) -> Any:
        seconds = self.limit.remaining() if timeout is None else min(timeout, self.limit.remaining())
        frame = self.transport.next_frame(seconds)
        if frame is None:
            raise TimeoutError("no answer in time")
        return self.on_inbound_frame(frame)

    def send(self, frames: bytes) -> None:
        self._open_transport().write(frames)

    def step(self, seconds: float) -> bool:
        """Handles one frame, waiting for it that long; False if none came."""
        frame = self._open_transport().next_frame(seconds)
        if frame is None:
            return False
        self.on_inbound_frame(frame)
        return True

    def pump(self, seconds: float) -> int:
        """Handles what has arrived, after waiting for the first of it that long. Returns how many frames that were."""
        count = 0
        while self.step(seconds):
            count += 1
            seconds = 0.0
        return count

    def _open_transport(self) -> Any:
        if self._transport is None:
            raise ConnectionResetError("the connection is closed")
        return self._transport

    def abort(self) -> None:
        """Ends whatever another thread waits for on this connection. Safe at any time, from any thread."""
        transport = self._transport
        sock = transport.sock if transport is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _socket_settings() -> dict[int, int]:
    """A dead server is found by keepalive. py-amqp's own default ends a connection after one second without an
    acknowledgement of TCP, which a crowded network does not always make."""
    wanted = _KEEPALIVE | {"TCP_USER_TIMEOUT": 0}
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}
