"""The proxy makes the trouble that it says, and none otherwise."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.services.proxy import Proxy
from tests.waiting import wait_until

Connect = Callable[[], socket.socket]


@pytest.fixture
def received() -> list[bytes]:
    """What the server has read, connection by connection."""
    return []


@pytest.fixture
def proxy(received: list[bytes]) -> Iterator[Proxy]:
    """Before a server that sends back what it gets."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=echo, args=(connection,), daemon=True).start()

    def echo(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                received.append(data)
                connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with Proxy(f"tcp://127.0.0.1:{server.getsockname()[1]}") as made:
            yield made
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def connect(proxy: Proxy) -> Iterator[Connect]:
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), timeout=5))


def echoes(connection: socket.socket, data: bytes = b"ping") -> bool:
    connection.sendall(data)
    return connection.recv(65536) == data


def read_to_the_end(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def test_in_good_health_it_is_not_there(connect: Connect) -> None:
    assert echoes(connect())


def test_it_stands_in_a_url(proxy: Proxy) -> None:
    assert proxy.through("nats://u:p@127.0.0.1:4222/x?y=1") == f"nats://u:p@127.0.0.1:{proxy.port}/x?y=1"


def test_it_cuts_what_is_connected_and_takes_new_connections(proxy: Proxy, connect: Connect) -> None:
    connection = connect()
    assert echoes(connection)
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    assert echoes(connect())


def test_it_refuses_until_it_is_healed(proxy: Proxy, connect: Connect) -> None:
    connection = connect()
    assert echoes(connection)
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect()
    proxy.heal()
    assert echoes(connect())


def test_it_cuts_in_the_middle(proxy: Proxy, connect: Connect, received: list[bytes]) -> None:
    connection = connect()
    proxy.cut_after(3)
    connection.sendall(b"abcdef")
    with pytest.raises(ConnectionResetError):
        read_to_the_end(connection)
    wait_until(lambda: received, what="the server has the first part")
    assert b"".join(received) == b"abc"
    assert echoes(connect())


def test_it_closes_one_half(proxy: Proxy, connect: Connect, received: list[bytes]) -> None:
    connection = connect()
    assert echoes(connection)
    proxy.half_close()
    assert connection.recv(1) == b""
    connection.sendall(b"into the void")
    assert echoes(connect())
    assert received == [b"ping", b"ping"]


def test_it_delays_both_ways(proxy: Proxy, connect: Connect) -> None:
    connection = connect()
    assert echoes(connection)
    proxy.delay(0.1)
    began = time.monotonic()
    assert echoes(connection)
    assert time.monotonic() - began >= 0.2
    proxy.heal()
    assert echoes(connection)


def test_it_stalls_until_it_is_healed(proxy: Proxy, connect: Connect) -> None:
    connection = connect()
    proxy.stall()
    connection.settimeout(0.1)
    connection.sendall(b"late")
    with pytest.raises(TimeoutError):
        connection.recv(4)
    proxy.heal()
    connection.settimeout(5)
    assert connection.recv(4) == b"late"
