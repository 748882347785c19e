"""`relay status`: how each pipeline is, and why it is not moving, on a real fleet."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from relay.local.servers import EmbeddedRedis
from tests.cli.command import environment, invoke, start
from tests.e2e.fleet import fleet
from tests.services.http_receiver import HttpReceiver, Rule
from tests.services.nats import NatsServer
from tests.services.postgres import Database
from tests.services.proxy import Proxy
from tests.waiting import wait_until


def status(url: str, name: str = "p") -> Any:
    result = invoke("status", name, "--json", url=url)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)[0]


def make_pipeline(database: Database, config: dict[str, Any]) -> None:
    with database.connect() as connection:
        connection.execute("select tide.outbox_create_if_not_exists('o')")
        connection.execute("select tide.relay_set_outbox('p', 'o', %s::jsonb)", [json.dumps(config)])


def publish(database: Database, count: int = 1) -> None:
    with database.connect() as connection:
        connection.execute("select tide.outbox_publish('o', to_jsonb(n)) from generate_series(1, %s) n", [count])


@pytest.fixture
def to_file(database: Database, tmp_path: Path) -> Database:
    make_pipeline(database, {"sink_type": "file", "path": str(tmp_path / "out.jsonl")})
    return database


def test_no_pipelines_is_said(database: Database) -> None:
    assert "there are no pipelines" in invoke("status", url=database.url).stdout
    assert json.loads(invoke("status", "--json", url=database.url).stdout) == []


def test_an_unknown_pipeline_is_an_error(database: Database) -> None:
    result = invoke("status", "missing", url=database.url)
    assert (result.exit_code, "pipeline missing does not exist" in result.stderr) == (1, True)


def test_a_disabled_pipeline_says_how_to_enable_it(to_file: Database) -> None:
    invoke("pipeline", "disable", "p", url=to_file.url)
    found = status(to_file.url)
    assert (found["state"], found["why"]) == ("disabled", "disabled: relay pipeline enable p")


def test_without_a_scheduler_nobody_owns_it_and_the_lag_grows(to_file: Database) -> None:
    publish(to_file, 3)
    found = status(to_file.url)
    assert (found["state"], found["owner"], found["lag_messages"]) == ("unowned", None, 3)
    assert found["why"] == "no scheduler is alive: start relay-scheduler"
    assert wait_until(lambda: status(to_file.url)["lag_seconds"] > found["lag_seconds"])


def test_rolled_back_ids_are_no_lag(to_file: Database) -> None:
    with to_file.connect(autocommit=False) as connection:
        connection.execute("select tide.outbox_publish('o', '1')")
        connection.rollback()
    assert status(to_file.url)["lag_messages"] == 0


def test_a_large_lag_is_counted_in_ids(to_file: Database) -> None:
    publish(to_file, 10_500)
    assert status(to_file.url)["lag_messages"] == 10_500


def test_a_fleet_at_rest_has_nothing_to_do(to_file: Database, redis_server: EmbeddedRedis) -> None:
    with fleet(to_file.url, redis_server.url) as running:
        publish(to_file, 5)
        found = wait_until(lambda: (s := status(to_file.url))["delivered"] == 5 and s["state"] == "idle" and s, 30)
        assert found["why"] == "nothing to do"
        assert found["owner"] == f"{os.uname().nodename}:{running.scheduler.pid}"
        assert (found["offset_id"], found["lag_messages"], found["last_error"]) == (5, 0, None)
        table = invoke("status", url=to_file.url).stdout
        assert "idle" in table and found["owner"] in table
        with to_file.connect() as connection:
            connection.execute("select tide.outbox_disable('o')")
        assert status(to_file.url)["why"] == "nothing to do: outbox o is disabled and takes no messages"


def test_an_open_transaction_that_holds_the_horizon_is_named(to_file: Database, redis_server: EmbeddedRedis) -> None:
    with fleet(to_file.url, redis_server.url):
        wait_until(lambda: status(to_file.url)["state"] == "idle", 30)
        with to_file.connect(autocommit=False, application_name="slow shop") as slow:
            slow.execute("select tide.outbox_publish('o', '1')")
            publish(to_file)
            found = wait_until(lambda: (s := status(to_file.url))["state"] == "held" and s)
            assert (
                f"transaction of pid {slow.info.backend_pid}, user tide_owner, application_name slow shop"
                in found["why"]
            )
            assert "holds the horizon at 0" in found["why"]
            slow.commit()
        wait_until(lambda: status(to_file.url)["delivered"] == 2)


def test_a_prepared_transaction_that_holds_the_horizon_is_named(to_file: Database, redis_server: EmbeddedRedis) -> None:
    with fleet(to_file.url, redis_server.url):
        with to_file.connect(autocommit=False) as connection:
            connection.execute("set tide.two_phase = 'on'")
            connection.execute("select tide.outbox_publish('o', '1')")
            connection.execute("prepare transaction 'forgotten'")
        found = wait_until(lambda: (s := status(to_file.url))["state"] == "held" and s, 30)
        assert "a prepared transaction 'forgotten', open for" in found["why"]


def test_a_failing_sink_shows_the_retry_and_its_cause(database: Database, redis_server: EmbeddedRedis) -> None:
    make_pipeline(database, {"sink_type": "nats", "url": "nats://127.0.0.1:1", "stream": "s"})
    publish(database)
    with fleet(database.url, redis_server.url):
        found = wait_until(lambda: (s := status(database.url))["state"] == "retrying" and s["failures"] > 2 and s, 30)
        assert found["last_error"] and found["last_error_code"] and found["last_error_at"]
        error = found["last_error"].removeprefix("pipeline 'p': ")
        assert found["why"] == f"{found['last_error_code']}: {error}"
        assert found["retry_at"] and found["retry_seconds"] >= 0
        row = wait_until(lambda: next((line for line in table(database.url) if re.match("p +retrying", line)), ""))
        assert re.search(r" (now|in [0-9.]+ s)  [a-z_]+: ", row) and row.count(error) == 1


def table(url: str) -> list[str]:
    return invoke("status", url=url).stdout.splitlines()


def test_what_does_not_recover_automatically_has_a_state_of_its_own(
    database: Database, redis_server: EmbeddedRedis, nats_server: NatsServer, http_receiver: HttpReceiver
) -> None:
    http_receiver.rule("/moved", Rule(status=308))
    inbox = redis.Redis.from_url(redis_server.url)
    inbox.xadd(f"{database.name}-bad", {"body": b"not JSON"})
    nats = {"sink_type": "nats", "url": nats_server.url, "stream": "missing", "timeout_ms": 2000}
    sinks: dict[str, dict[str, Any]] = {
        "no-stream": nats,
        "no-secret": nats | {"url": "${env:SECRET_THAT_NO_ONE_SET}"},
        "bad-login": nats | {"url": nats_server.url.replace(nats_server.password, "wrong")},
        "moved": {
            "sink_type": "webhook",
            "url": f"{http_receiver.url}/moved",
            "allow_private_network": True,
            "allow_http": True,
        },
        "down": nats | {"url": "nats://127.0.0.1:1"},
    }
    source = {"source_type": "redis", "url": redis_server.url, "stream": f"{database.name}-bad", "on_invalid": "stop"}
    with database.connect() as connection:
        connection.execute("select tide.outbox_create('o'), tide.inbox_create('i')")
        for name, config in sinks.items():
            connection.execute("select tide.relay_set_outbox(%s, 'o', %s::jsonb)", [name, json.dumps(config)])
        connection.execute("select tide.relay_set_inbox('bad-message', 'i', %s::jsonb)", [json.dumps(source)])
    publish(database)

    def states() -> dict[str, str]:
        found = json.loads(invoke("status", "--json", url=database.url).stdout)
        return {status["name"]: status["state"] for status in found}

    broken = ["bad-login", "bad-message", "moved", "no-secret", "no-stream"]
    with fleet(database.url, redis_server.url):
        wanted = dict.fromkeys(broken, "broken") | {"down": "retrying"}
        wait_until(lambda: states() == wanted, 30, "five are broken, and the one whose server is down retries")
        with database.connect() as connection:
            connection.execute("select tide.relay_set_outbox('no-stream', 'o', '{\"sink_type\": \"memory\"}')")
        wait_until(lambda: states()["no-stream"] == "idle", 30)


def test_dead_letters_are_those_that_are_dead_now(to_file: Database) -> None:
    publish(to_file, 3)
    with to_file.connect() as connection:
        connection.execute("""
            insert into tide.dead_letter (pipeline, outbox, message_id, payload, code, reason)
            select 'p', 'o', n, '1', 'refused', 'no' from generate_series(1, 3) n""")
        connection.execute("update tide.drain set dead_letters = 3")
        connection.execute("select tide.relay_dlq_discard(min(dead_letter_id)) from tide.dead_letter")
    found = status(to_file.url)
    assert (found["dead_letters"], found["dead_letters_ever"]) == (2, 3)
    assert re.search(r"^p +unowned .* 2  no scheduler", table(to_file.url)[1])


def test_an_invalid_pipeline_shows_the_reason(database: Database, redis_server: EmbeddedRedis) -> None:
    make_pipeline(database, {"sink_type": "stdout", "colour": "blue"})
    with fleet(database.url, redis_server.url, workers=False):
        found = wait_until(lambda: (s := status(database.url))["state"] == "invalid" and s, 30)
        assert found["why"].startswith("invalid: colour: unknown key")


def test_missing_workers_are_named(
    to_file: Database, redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.operations.fleet.UNTAKEN_SECONDS", 1.0)
    publish(to_file)
    with fleet(to_file.url, redis_server.url, workers=False), to_file.connect() as db:
        found = wait_until(lambda: (s := status(to_file.url))["state"] == "waiting" and "worker" in s["why"] and s, 30)
        assert found["why"] == "no worker is alive: start relay workers"
        beat = "select tide.process_beat('00000000-0000-0000-0000-000000000000', 'workers', 'here', 7, '0', %s, %s)"
        for queues, lacking, why in (
            (
                ["tide.reverse"],
                [],
                "no worker serves its queue tide.forward: start relay workers --queues tide.forward",
            ),
            (
                ["tide.forward"],
                ["tide.forward"],
                "no worker is connected to its queue tide.forward: see the log of here:7",
            ),
        ):
            db.execute(beat, [queues, lacking])
            assert status(to_file.url)["why"] == why
        db.execute(beat, [["tide.forward"], []])
        found = wait_until(lambda: "waited for" in (s := status(to_file.url))["why"] and s, 30)
        assert "in tide.forward, and it was not taken: relay doctor says" in found["why"]


def test_a_drain_that_holds_the_lease_is_shown(database: Database, redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    fifo_like = tmp_path / "locked.jsonl"
    make_pipeline(database, {"sink_type": "file", "path": str(fifo_like), "timeout_ms": 14_000})
    with fifo_like.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        publish(database)
        with fleet(database.url, redis_server.url):
            found = wait_until(lambda: (s := status(database.url))["state"] == "draining" and s, 30)
            assert found["why"].startswith("a drain holds the lease until ")
            fcntl.flock(held, fcntl.LOCK_UN)
            wait_until(lambda: status(database.url)["delivered"] == 1, 30)


def test_the_rights_of_a_relay_are_enough(to_file: Database) -> None:
    role = f"relay_{to_file.name}"
    with to_file.admin() as admin:
        admin.execute(f"create role {role} login password 'p'")
    with to_file.connect() as connection:
        connection.execute(f"select tide.grant_relay('{role}')")
    url = to_file.server.process.url_of(to_file.name, role, "p")
    with to_file.connect(autocommit=False, application_name="shop") as slow:
        slow.execute("select tide.outbox_publish('o', '1')")
        assert status(url)["state"] == "unowned"
        found = json.loads(invoke("doctor", "--json", url=url).stdout)
        assert next(f for f in found if f["check"] == "rights")["result"] == "ok"


def test_watch_goes_on_until_it_is_stopped(to_file: Database, tmp_path: Path) -> None:
    """Also while PostgreSQL is away: what is printed as JSON keeps its form, and the reason goes to standard error."""
    with Proxy(to_file.url) as proxy:
        command = start(
            "status", "--watch", "--json", "--interval", "0.1", cwd=tmp_path, stderr=subprocess.PIPE,
            env=environment(RELAY_POSTGRES_URL=proxy.through(to_file.url)),
        )  # fmt: skip
        with command:
            assert command.stdout is not None and command.stderr is not None
            assert json.loads(command.stdout.readline())[0]["delivered"] == 0
            proxy.refuse()
            publish(to_file, 2)
            assert "UTC no status: PostgreSQL: " in command.stderr.readline()
            proxy.heal()
            wait_until(lambda: json.loads(command.stdout.readline())[0]["lag_messages"] == 2)
            command.send_signal(signal.SIGINT)
            command.stdout.read()
            assert command.wait(10) == 0


def test_a_watch_that_can_never_work_ends(database: Database) -> None:
    result = invoke("status", "missing", "--watch", url=database.url)
    assert (result.exit_code, "pipeline missing does not exist" in result.stderr) == (1, True)


class Terminal:
    """A terminal of 80 columns and 24 lines, and what a program has written to it."""

    def __init__(self) -> None:
        self.ours, self.its = pty.openpty()
        fcntl.ioctl(self.its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._written = b""

    def close(self) -> None:
        os.close(self.ours)
        os.close(self.its)

    def written(self) -> str:
        """Since the last time."""
        while select.select([self.ours], [], [], 0.05)[0]:
            self._written += os.read(self.ours, 65536)
        text, self._written = self._written.decode(errors="replace"), b""
        return text


def test_on_a_screen_watch_says_that_postgresql_is_away_read_only_or_hangs(to_file: Database, tmp_path: Path) -> None:
    env = environment(TERM="xterm-256color") | {"LINES": "24"}
    del env["COLUMNS"]
    with closing(Terminal()) as terminal, Proxy(to_file.url) as proxy:
        command = start(
            "status", "--watch", "--interval", "0.2", cwd=tmp_path, stdout=terminal.its, stderr=terminal.its,
            env=env | {"RELAY_POSTGRES_URL": proxy.through(to_file.url)},
        )  # fmt: skip
        with command:
            wait_until(lambda: "UTC  1 unowned" in terminal.written())
            proxy.stall()
            wait_until(lambda: "No status now: PostgreSQL has not answered" in terminal.written())
            proxy.refuse()
            wait_until(lambda: "No status now: PostgreSQL: " in terminal.written())
            with to_file.admin() as admin:
                admin.execute(f"alter database {to_file.name} set default_transaction_read_only = on")
            proxy.heal()
            wait_until(lambda: "PostgreSQL is read-only, and nothing moves" in terminal.written())
            command.send_signal(signal.SIGINT)
            wait_until(lambda: terminal.written() is not None and command.poll() == 0)
