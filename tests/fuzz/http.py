"""Whatever bytes come over a connection are answered with a status, or the connection is closed; then the server works.

The program fuzzes the server of metrics and health in its own process, the tests also a running `relay api`.
"""

import errno
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from relay.process.http_server import HttpServer, text
from tests.fuzz.generate import BYTES, mutated, swarm
from tests.fuzz.generate import text as odd_text
from tests.fuzz.running import main

PATIENCE_SECONDS = 30.0
"""The longest limit of a server, and a loaded machine."""
MOST_GROWTH_BYTES = 64 * 1024 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] [1-5]\d\d ")

METHODS = ("GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "PRI", "get", "G\0T")
PATHS = (
    "/health", "/metrics", "/ready", "/hooks/h", "/", "*", "//health", "/health?x", "/%00", "/../..", "http://a/health",
    "/hooks/" + "a" * 300, "/" + "a" * 70_000, "/\x80",
)  # fmt: skip
VERSIONS = ("HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", "http/1.1", "", "HTTP/1.1 x")
HEADERS = (
    "Host: a", "Host: a\r\nHost: b", "Content-Length: 5", "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: -1", "Content-Length: 99999999999999999999", "Content-Length: 0x5", "Content-Length: +5",
    "Transfer-Encoding: chunked", "Transfer-Encoding: chunked, identity", "Transfer-Encoding: \x0bchunked",
    "Content-Type: application/json", "Content-Encoding: gzip", "Expect: 100-continue", "Upgrade: websocket",
    "Connection: close", "Connection: keep-alive", " folded: yes", "No colon", ": empty", "a: " + "x" * 70_000,
    "\r\n".join(f"h{n}: v" for n in range(300)), "webhook-id: \xff", "x: \0", "Range: bytes=0-",
    "Authorization: Bearer x",
)  # fmt: skip
BODIES = (
    b"",
    b"{}",
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"-1\r\n",
    b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
)


class Fuzzing:
    """Of the server at a port: `is_well` raises unless it still answers a good request as it should."""

    def __init__(self, port: int, is_well: Callable[[], None], process: str = "self") -> None:
        self._port = port
        self._is_well = is_well
        self._process = process
        is_well()
        self._grown_from = _memory_bytes(process)
        self._cases = 0

    def __call__(self, rng: random.Random) -> None:
        self._cases += 1
        data = request(rng)
        answer = self._ask(data, hurries=rng.random() < 0.8, pieces=rng.randrange(1, 4))
        if answer:
            assert _STATUS.match(answer), answer[:200]
        if self._cases % 20 == 0:
            self.check()

    def check(self) -> None:
        self._is_well()
        grown = _memory_bytes(self._process) - self._grown_from
        assert grown < MOST_GROWTH_BYTES, f"the server has grown by {grown} bytes"

    def _ask(self, data: bytes, *, hurries: bool, pieces: int) -> bytes:
        """What it answers; one that does not hurry stops sending, and waits for what the server does about it."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE_SECONDS) as connection:
            answer = b""
            with _hung_up():
                for piece in _pieces(data, pieces):
                    connection.sendall(piece)
                if hurries:
                    connection.shutdown(socket.SHUT_WR)
                else:
                    # Some requests are whole, and their connection stays open: one answer is enough.
                    connection.settimeout(0.2)
                with suppress(TimeoutError):
                    while len(answer) < 100_000 and (read := connection.recv(65536)):
                        answer += read
                    return answer
                assert not hurries, f"neither an answer nor an end within {PATIENCE_SECONDS} s to {data[:300]!r}"
        return answer


def request(rng: random.Random) -> bytes:
    kind = rng.randrange(8)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        return rng.choice(BYTES) * rng.randrange(1, 70_000)
    line = " ".join(
        (swarm(rng, METHODS, lambda: odd_text(rng)), swarm(rng, PATHS, lambda: odd_text(rng)), rng.choice(VERSIONS))
    )
    lines = [line, *(swarm(rng, HEADERS, lambda: odd_text(rng)) for _ in range(rng.randrange(6)))]
    end = rng.choice(("\r\n", "\r\n", "\r\n", "\n", "\r"))
    data = (end.join(lines) + end * 2).encode("latin-1", "replace") + rng.choice(BODIES)
    return mutated(rng, data) if kind < 5 else data


@contextmanager
def _hung_up() -> Iterator[None]:
    """The server may close the connection at any time."""
    try:
        yield
    except OSError as error:
        if not isinstance(error, ConnectionError) and error.errno != errno.ENOTCONN:
            raise


def _pieces(data: bytes, count: int) -> list[bytes]:
    size = max(1, len(data) // count)
    return [data[begin : begin + size] for begin in range(0, len(data), size)]


def _memory_bytes(process: str) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def healthy(port: int, path: str = "/health", expected: bytes = b" 200 ") -> None:
    """A good request is answered, however the requests before it were."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
            if expected in answer[:20]:
                return
        assert time.monotonic() < deadline, "the server does not answer a good request any more"


@contextmanager
def own_server() -> Iterator[Fuzzing]:
    """The server of metrics and health, in this process; at the end no thread of it is left."""
    threads = set(threading.enumerate())
    server = HttpServer(("127.0.0.1", 0), {"/health": lambda: text(200, "ok"), "/metrics": lambda: text(200, "x 1")})
    port = server.address[1]
    try:
        yield Fuzzing(port, lambda: healthy(port))
    finally:
        server.close()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while stuck := set(threading.enumerate()) - threads:
        assert time.monotonic() < deadline, stuck
        for thread in stuck:
            thread.join(1)


if __name__ == "__main__":
    with own_server() as fuzzing:
        main("http", fuzzing)
