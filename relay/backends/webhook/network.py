"""The network below a webhook: it checks every address when it connects, and every wait ends with the request's time.

Why not httpcore's own: it gives the name to the system, which may resolve it to a private address after a check of ours
has seen a public one. Here the name is looked up, each of its addresses is judged, and the connection goes to an
address that was judged. TLS still verifies the name. httpcore's time limits count for single reads and writes. Neither
proxies of the environment nor Unix sockets are used. `make bench ARGS="--only webhook"` compares the sink with a bare
loop over httpx, which has httpcore's own network.
"""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import httpcore

from relay.backends.common.addresses import allowed, look_up
from relay.backends.webhook.status_line import KEPT_BYTES

E = TypeVar("E", bound=Exception)


class Network(httpcore.NetworkBackend):
    """Connects for one sink. `abort` may be called from any thread, and ends whatever waits."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._below = httpcore.SyncBackend()
        self._time = threading.local()
        self._lock = threading.Lock()
        self._open: set[Stream] = set()
        self._aborted = False

    @contextlib.contextmanager
    def until(self, deadline: float) -> Iterator[None]:
        """Everything that this thread waits for inside the context ends at `deadline`, of the monotonic clock."""
        self._time.deadline = deadline
        self._time.begun = b""
        try:
            yield
        finally:
            del self._time.deadline

    def hurry(self, seconds: float) -> None:
        """What this thread still waits for ends that soon."""
        self._time.deadline = min(self._time.deadline, time.monotonic() + seconds)

    def saw(self, data: bytes) -> None:
        """Keeps the beginning of what this thread reads inside the context."""
        if len(begun := getattr(self._time, "begun", b"")) < KEPT_BYTES:
            self._time.begun = begun + data[: KEPT_BYTES - len(begun)]

    @property
    def begun(self) -> bytes:
        """The beginning of the answer that this thread has read."""
        begun: bytes = self._time.begun
        return begun

    def seconds_left(self, late: type[E]) -> float:
        """Raises `late` if none are."""
        # Outside a request nothing waits: connections that lay idle are only closed.
        seconds: float = getattr(self._time, "deadline", 0.0) - time.monotonic()
        if seconds <= 0:
            raise late("out of time")
        return seconds

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 (the deadline counts)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = self._addresses(host, port)
        last: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            seconds = self.seconds_left(httpcore.ConnectTimeout)
            try:
                below = self._below.connect_tcp(address, port, seconds, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
                continue
            return self.keep(Stream(below, self))
        raise last

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = look_up(host, port, self.seconds_left(httpcore.ConnectTimeout))
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(f"{host} cannot be looked up: {error.strerror or error}") from error
        return allowed(host, found, allow_private=self._allow_private)

    def keep(self, stream: "Stream") -> "Stream":
        with self._lock:
            self._open.add(stream)
            aborted = self._aborted
        if aborted:
            stream.close()
            raise httpcore.ConnectError("the sink was closed")
        return stream

    def forget(self, stream: "Stream") -> None:
        with self._lock:
            self._open.discard(stream)

    def abort(self) -> None:
        """Ends every connection, also under a thread that waits on it, and refuses new ones."""
        with self._lock:
            self._aborted = True
            streams = list(self._open)
        for stream in streams:
            stream.abort()


class Stream(httpcore.NetworkStream):
    """One connection."""

    def __init__(self, below: httpcore.NetworkStream, network: Network) -> None:
        self._below = below
        self._network = network
        self._socket: socket.socket = below.get_extra_info("socket")

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        data = self._below.read(max_bytes, self._network.seconds_left(httpcore.ReadTimeout))
        self._network.saw(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        # Not the client's: it gives each piece the whole time again.
        rest = memoryview(buffer)
        try:
            while rest:
                self._socket.settimeout(self._network.seconds_left(httpcore.WriteTimeout))
                rest = rest[self._socket.send(rest) :]
        except TimeoutError as error:
            raise httpcore.WriteTimeout("out of time") from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        seconds = self._network.seconds_left(httpcore.ConnectTimeout)
        self._network.forget(self)
        return self._network.keep(Stream(self._below.start_tls(ssl_context, server_hostname, seconds), self._network))

    def get_extra_info(self, info: str) -> Any:
        return self._below.get_extra_info(info)

    def close(self) -> None:
        self._network.forget(self)
        self._below.close()

    def abort(self) -> None:
        # Of the plain socket also under TLS, which would first want to talk; and `close` would wake no thread.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
