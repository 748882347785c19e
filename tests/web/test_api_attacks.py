"""`relay api` under those who know no secret: whatever they hold, the messages of others are stored."""

import http.client
import itertools
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from tests.services.postgres import Database, PostgresServer
from tests.waiting import wait_until
from tests.web.api import ApiProcess, make_hook, reply, running_api, signed

ATTACKER, OTHER = "127.0.0.2", "127.0.0.3"
MIB = 1024 * 1024
BODY = b'{"n": 1}'
numbers = itertools.count()


@pytest.fixture(scope="module")
def api(_postgres18: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    """With two hooks, `attacked` and `quiet`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    _postgres18.start()
    database: Database = _postgres18.create_database()
    for name in ("attacked", "quiet"):
        make_hook(database, name)
    with running_api(database, tmp_path_factory.mktemp("api")) as running:
        for name in ("attacked", "quiet"):
            running.wait_for(name)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
        yield running
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    _postgres18.drop_database(database)


def send(api: ApiProcess, hook: str, peer: str, body: bytes = BODY) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10, source_address=(peer, 0))
    with closing(connection):
        connection.request("POST", f"/hooks/{hook}", body, signed(f"m{next(numbers)}", body))
        return reply(connection).status


def everyone_is_served(api: ApiProcess) -> None:
    """Other peers, and behind the same address, as with a proxy, the other hook; the attacked one too."""
    body = b'"' + b"x" * (MIB - 2) + b'"'
    for peer, hook, large in itertools.product((OTHER, ATTACKER), ("quiet", "attacked"), (BODY, body)):
        assert send(api, hook, peer, large) == 200, (peer, hook, len(large))
    assert api.get("/ready").status == 200


Attack = Callable[[ApiProcess, ExitStack], None]


def one_byte_of_a_body(api: ApiProcess, stack: ExitStack) -> None:
    for _ in range(1200):
        stack.enter_context(api.begun("attacked", "content-length: 100", peer=ATTACKER)).sendall(b"{")


def half_sent_bodies(api: ApiProcess, stack: ExitStack) -> None:
    for _ in range(72):
        connection = stack.enter_context(api.begun("attacked", f"content-length: {MIB}", peer=ATTACKER))
        with suppress(ConnectionError):
            connection.sendall(b"x" * (MIB - 1))


def half_sent_bodies_from_many_addresses_to_many_hooks(api: ApiProcess, stack: ExitStack) -> None:
    for number in range(150):
        hook = ("attacked", "quiet")[number % 2]
        peer = f"127.0.1.{number + 1}"
        connection = stack.enter_context(api.begun(hook, f"content-length: {MIB}", peer=peer))
        with suppress(ConnectionError):
            connection.sendall(b"x" * (MIB - 1))


def idle_connections(api: ApiProcess, stack: ExitStack) -> None:
    for _ in range(4200):
        stack.enter_context(api.connected(ATTACKER))


def heads_without_end(api: ApiProcess, stack: ExitStack) -> None:
    for _ in range(4200):
        connection = stack.enter_context(api.connected(ATTACKER))
        with suppress(ConnectionError):
            connection.sendall(b"POST /hooks/attacked HTTP/1.1\r\nx: " + b"y" * 8000)


def answers_that_are_not_read(api: ApiProcess, stack: ExitStack) -> None:
    for _ in range(100):
        connection = stack.enter_context(api.connected(ATTACKER))
        connection.settimeout(0.01)
        with suppress(OSError):
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n" * 2000)


def continue_expected(api: ApiProcess, stack: ExitStack) -> None:
    for _ in range(300):
        headers = ("content-length: 1000000", "expect: 100-continue")
        connection = stack.enter_context(api.begun("attacked", *headers, peer=ATTACKER))
        assert connection.recv(30).startswith(b"HTTP/1.1 100 ")


def bodies_for_no_one(api: ApiProcess, stack: ExitStack) -> None:
    for path in ("unknown", "attacked/x") * 200:
        connection = stack.enter_context(api.begun(path, f"content-length: {MIB}", peer=ATTACKER))
        connection.sendall(b"x" * 1000)


ATTACKS: list[Attack] = [
    one_byte_of_a_body,
    half_sent_bodies,
    half_sent_bodies_from_many_addresses_to_many_hooks,
    idle_connections,
    heads_without_end,
    answers_that_are_not_read,
    continue_expected,
    bodies_for_no_one,
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_messages_of_others_are_stored_meanwhile(api: ApiProcess, attack: Attack) -> None:
    with ExitStack() as stack:
        attack(api, stack)
        everyone_is_served(api)


def test_what_has_no_looks_of_a_signature_is_refused_before_its_body(api: ApiProcess) -> None:
    lines = "POST /hooks/attacked HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n"
    stale = "".join(f"{name}: {value}\r\n" for name, value in signed("a", b"{}", seconds=1).items())
    for head in (lines, lines.replace("content-type: application/json\r\n", "") + stale):
        with api.connected(ATTACKER) as connection:
            connection.sendall(head.encode() + b"\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 401 ")


def test_a_body_in_tiny_chunks_is_ended_and_one_in_ordinary_chunks_is_not(api: ApiProcess) -> None:
    with api.begun("attacked", "transfer-encoding: chunked", peer=ATTACKER) as connection:

        def is_ended() -> bool:
            try:
                connection.sendall(b"1\r\nx\r\n" * 10_000)
            except OSError:
                return True
            return False

        wait_until(is_ended, 20)
    body = b'"' + b"x" * 500_000 + b'"'
    headers = "".join(f"{name}: {value}\r\n" for name, value in signed("chunked", body).items())
    with api.connected(OTHER) as connection:
        connection.sendall(b"POST /hooks/quiet HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n")
        connection.sendall(headers.encode() + b"\r\n")
        for start in range(0, len(body), 50):
            piece = body[start : start + 50]
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_requests_may_follow_each_other_without_waiting_for_answers(api: ApiProcess) -> None:
    with api.connected(OTHER) as connection:
        connection.sendall(b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n" * 3000)
        answers = b""
        while answers.count(b"HTTP/1.1 200 ") < 3000:
            answers += connection.recv(MIB)
