"""`relay api` when things end, break, or come all at once."""

import http.client
import itertools
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from tests.services.postgres import Database, PostgresServer
from tests.waiting import wait_until
from tests.web.api import ApiProcess, make_hook, reply, running_api, signed, stored

BODY = b'{"n": 1}'


class Senders:
    """Threads that send one message after the other over connections of their own, and remember what was answered."""

    def __init__(self, ports: list[int], hook: str, count: int) -> None:
        self.accepted: list[str] = []
        self.refused: list[int] = []
        self._numbers = itertools.count()
        self._enough = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(ports[n % len(ports)], hook), daemon=True) for n in range(count)
        ]

    def __enter__(self) -> "Senders":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join(20)

    def _send(self, port: int, hook: str) -> None:
        while not self._enough.is_set():
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
                try:
                    while not self._enough.is_set():
                        event_id = f"e{next(self._numbers)}"
                        connection.request("POST", f"/hooks/{hook}", BODY, signed(event_id, BODY))
                        status = reply(connection).status
                        (self.accepted.append(event_id) if status == 200 else self.refused.append(status))
                except (OSError, http.client.HTTPException):
                    self._enough.wait(0.01)


def test_whatever_was_answered_with_200_is_there_when_processes_are_killed(database: Database, tmp_path: Path) -> None:
    hook = make_hook(database, "shop")
    with ExitStack() as stack:
        apis = [stack.enter_context(running_api(database, _folder(tmp_path, name))) for name in "ab"]
        for api in apis:
            api.wait_for(hook)
        with Senders([api.port for api in apis], hook, 16) as senders:
            wait_until(lambda: len(senders.accepted) > 300, 30)
            apis[0].kill()
            seen = len(senders.accepted)
            wait_until(lambda: len(senders.accepted) > seen + 200, 30)
            apis[1].kill()
    assert set(senders.accepted) <= stored(database, hook).keys()
    assert len(senders.accepted) == len(set(senders.accepted))


def test_a_session_that_ended_while_it_was_idle_costs_no_request(database: Database, tmp_path: Path) -> None:
    """Senders such as GitHub do not send a webhook again that was answered with 503."""
    hook = make_hook(database, "shop")
    with running_api(database, tmp_path) as api, database.admin() as admin:
        api.wait_for(hook)
        assert api.send(hook, "a").status == 200
        for number in range(3):
            idle = "from pg_stat_activity where application_name = 'tide-relay api' and datname = %s"
            ended = admin.execute(f"select pg_terminate_backend(pid, 10000) {idle}", [database.name])
            assert ended.fetchall() == [(True,)]
            assert api.send(hook, f"b{number}").status == 200
        assert "cannot write" not in api.log.read_text()
    assert stored(database, hook).keys() == {"a", "b0", "b1", "b2"}


def test_many_requests_share_a_commit(database: Database, tmp_path: Path) -> None:
    hook = make_hook(database, "shop")
    with running_api(database, tmp_path) as api:
        api.wait_for(hook)
        with Senders([api.port], hook, 32) as senders:
            wait_until(lambda: len(senders.accepted) > 500, 60)
        text = api.get("/metrics", api.metrics_port).body.decode()
        batches = float(text.partition("\ntide_relay_api_batches_total ")[2].split()[0])
        assert not senders.refused
    assert stored(database, hook).keys() >= set(senders.accepted)
    assert batches < len(senders.accepted) / 2


def test_stopping_finishes_what_is_in_hand(database: Database, tmp_path: Path) -> None:
    hook = make_hook(database, "shop")
    with running_api(database, tmp_path) as api:
        api.wait_for(hook)
        with closing(http.client.HTTPConnection("127.0.0.1", api.port, timeout=20)) as connection:
            # Half a request is on its way when the signal comes.
            headers = signed("a", BODY)
            connection.putrequest("POST", f"/hooks/{hook}")
            for name, value in (headers | {"content-length": str(len(BODY))}).items():
                connection.putheader(name, value)
            connection.endheaders()
            connection.send(BODY[:3])
            assert api.get("/ready").status == 200  # which was asked later, so the other has arrived
            api.process.terminate()
            wait_until(lambda: _refuses_connections(api.port))
            connection.send(BODY[3:])
            assert reply(connection).status == 200
        assert api.process.wait(30) == 0
    assert list(stored(database, hook)) == ["a"]


def test_while_postgresql_is_away_senders_are_asked_to_come_again(
    own_postgres: Callable[..., PostgresServer], tmp_path: Path
) -> None:
    server = own_postgres()
    database = server.create_database()
    hook = make_hook(database, "shop")
    with running_api(database, tmp_path) as api:
        assert wait_until(lambda: api.send(hook, "before").status == 200)
        server.kill()
        answer = api.send(hook, "a")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        public = api.get("/health")
        assert (public.status, public.body["status"]) == (200, "degraded"), "a restart would fix nothing"
        assert "reasons" not in public.body
        private = api.get("/health", api.metrics_port)
        assert (private.status, private.body["status"]) == (200, "degraded")
        assert "PostgreSQL" in str(private.body["reasons"])
        assert api.get("/ready").status == api.get("/ready", api.metrics_port).status == 200
        server.start()
        wait_until(lambda: api.send(hook, "a").status == 200, 20)
        make_hook(database, "other")
        wait_until(lambda: api.send("other", "a").status == 200, 20)
        wait_until(lambda: api.get("/health").body["status"] == "healthy", 20)
    assert list(stored(database, hook)) == ["before", "a"], "answered with 200, and not durable"


def test_it_can_start_before_postgresql_does(own_postgres: Callable[..., PostgresServer], tmp_path: Path) -> None:
    server = own_postgres()
    database = server.create_database()
    hook = make_hook(database, "shop")
    server.kill()
    api = ApiProcess(database.url, tmp_path)
    try:
        wait_until(lambda: not _refuses_connections(api.port), 20)
        assert (api.get("/ready").status, api.get("/ready").body) == (503, {"ready": False})
        wait_until(lambda: "PostgreSQL" in str(api.get("/ready", api.metrics_port).body.get("reasons")), 20)
        assert api.get("/health").status == 200
        assert api.send(hook, "a").status == 503
        server.start()
        wait_until(lambda: api.send(hook, "a").status == 200, 20)
    finally:
        api.kill()


def test_it_asks_to_be_started_anew_when_a_thread_of_it_has_ended(database: Database, tmp_path: Path) -> None:
    """By a row that no function would write, and that no reader expects."""
    hook = make_hook(database, "shop")
    with running_api(database, tmp_path, RELAY_DISCOVERY_INTERVAL="100ms") as api:
        api.wait_for(hook)
        with database.connect() as connection:
            connection.execute(
                "alter table tide.pipeline alter revision drop default, alter revision type jsonb using '[]'"
            )
        wait_until(lambda: api.get("/health").status == 503, 60)
        assert api.get("/health").body.keys() == {"status", "pipelines", "uptime_seconds"}
        private = api.get("/health", api.metrics_port)
        assert (private.status, private.body["status"]) == (503, "unhealthy")
        assert private.body["reasons"] == ["the thread 'hooks' has ended; the log says why"]
        assert [api.get("/ready", port).status for port in (api.port, api.metrics_port)] == [503, 503]
        assert "TypeError" in api.log.read_text()


def test_it_needs_no_more_than_the_rights_of_grant_api(database: Database, tmp_path: Path) -> None:
    hook = make_hook(database, "shop")
    with database.admin() as admin:
        admin.execute("create role receiver login password 'receiver'")
    try:
        with database.connect() as connection:
            connection.execute("select tide.grant_api('receiver')")
        url = database.server.process.url_of(database.name, "receiver", "receiver")
        api = ApiProcess(url, tmp_path)
        try:
            api.wait_until_ready()
            assert [api.send(hook, "a", body).status for body in (BODY, BODY, b"2")] == [200, 200, 409]
        finally:
            api.kill()
    finally:
        with database.admin() as admin:
            admin.execute("drop owned by receiver; drop role receiver")


def test_a_secret_in_a_file_may_be_replaced(database: Database, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    hook = make_hook(database, "shop", signing_secret=f"${{file:{secret}}}")
    with running_api(database, tmp_path, RELAY_DISCOVERY_INTERVAL="100ms") as api:
        api.wait_for(hook, status=503)
        for number, text in enumerate(("whsec_b25l", "whsec_dHdv")):
            secret.write_text(text + "\n")
            wait_until(lambda: api.post(hook, BODY, signed(f"m{number}", BODY, text)).status == 200)  # noqa: B023
        assert api.post(hook, BODY, signed("m2", BODY, "whsec_b25l")).status == 401


def test_connections_on_which_no_request_comes_are_ended(database: Database, tmp_path: Path) -> None:
    with running_api(database, tmp_path) as api, ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", api.port), timeout=20)) for _ in range(2)]
        silent[1].sendall(b"POST /hooks/shop HTTP/1.1\r\nhost: x\r\n")
        assert [connection.recv(100) for connection in silent] == [b"", b""]


def test_an_address_in_use_is_a_clear_error(database: Database, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        api = ApiProcess(database.url, tmp_path, RELAY_API_METRICS_ADDR=f"127.0.0.1:{taken.getsockname()[1]}")
        try:
            assert api.process.wait(20) == 1
        finally:
            api.kill()
    assert "cannot listen" in api.log.read_text()


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


def _refuses_connections(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return False
    except OSError:
        return True


def test_a_body_that_is_no_http_ends_the_connection_before_the_answer_and_after_it(
    database: Database, tmp_path: Path
) -> None:
    head = b"POST /hooks/none HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with running_api(database, tmp_path) as api:
        for method in (b"POST", b"HEAD"):
            with socket.create_connection(("127.0.0.1", api.port), timeout=20) as together:
                together.sendall(head.replace(b"POST", method) + b"-1\r\n")
                assert b" 400 " in together.recv(65536)
        with socket.create_connection(("127.0.0.1", api.port), timeout=20) as apart:
            apart.sendall(head)
            answer = b""
            while b"not_found" not in answer:
                piece = apart.recv(65536)
                assert piece
                answer += piece
            apart.sendall(b"-1\r\n")
            assert apart.recv(65536) == b""
        assert api.process.poll() is None
        assert "Traceback" not in api.log.read_text()
