"""`relay doctor`: what is not right is found, with its fix."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from relay.local.servers import EmbeddedRedis
from relay.operations.locks import lock_key, slot_of
from tests.cli.command import invoke
from tests.cli.test_status import make_pipeline, publish, status
from tests.e2e.fleet import fleet
from tests.services.kafka import KafkaServer
from tests.services.postgres import Database, PostgresServer
from tests.services.rabbitmq import RabbitmqServer
from tests.waiting import wait_until


def findings(url: str, broker_url: str = "redis://127.0.0.1:1/0") -> tuple[int, dict[str, Any]]:
    """The exit code, and the last finding of each check."""
    result = invoke("doctor", "--json", url=url, RELAY_BROKER_URL=broker_url)
    return result.exit_code, {finding["check"]: finding for finding in json.loads(result.stdout)}


def test_a_healthy_installation_passes(database: Database, redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    make_pipeline(database, {"sink_type": "file", "path": str(tmp_path / "out")})
    with fleet(database.url, redis_server.url):
        wait_until(lambda: status(database.url)["state"] == "idle", 30)
        code, found = findings(database.url, redis_server.url)
        assert {f["result"] for f in found.values()} == {"ok"}, found
        assert code == 0
        text = invoke("doctor", url=database.url, RELAY_BROKER_URL=redis_server.url)
        assert text.exit_code == 0 and "✓ migrations: current" in text.stdout
        assert redis_server.password not in text.output and "owner@" not in text.output


def test_a_server_that_is_not_there_fails_with_a_fix() -> None:
    code, found = findings("postgresql://u@127.0.0.1:1/d")
    assert code == 1
    assert found["connection"]["result"] == found["broker"]["result"] == "failed"
    assert "check the URL" in found["connection"]["fix"]


def test_a_broker_that_takes_no_writes_fails(redis_server: EmbeddedRedis) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory", 1)
        try:
            found = findings("postgresql://u@127.0.0.1:1/d", redis_server.url)[1]["broker"]
        finally:
            client.config_set("maxmemory", 0)
    assert found["result"] == "failed"
    assert "it is out of memory" in found["found"]
    assert "memory to spare" in found["fix"]


def test_rabbitmq_is_looked_at_too(database: Database, rabbitmq_server: RabbitmqServer) -> None:
    assert findings(database.url, rabbitmq_server.url)[1]["broker"]["result"] == "ok"
    assert findings(database.url, "amqp://u:p@127.0.0.1:1/")[1]["broker"]["result"] == "failed"


def test_an_unmigrated_database_fails(empty_database: Database) -> None:
    code, found = findings(empty_database.url)
    assert code == 1
    assert found["migrations"]["result"] == "failed" and "relay migrate" in found["migrations"]["fix"]


def test_no_scheduler_fails_only_where_there_is_work(database: Database, redis_server: EmbeddedRedis) -> None:
    code, found = findings(database.url, redis_server.url)
    odd = {check: finding["result"] for check, finding in found.items() if finding["result"] != "ok"}
    assert (code, odd) == (0, {"scheduler": "warning", "workers": "warning"}), "a fresh database"
    make_pipeline(database, {"sink_type": "stdout"})
    found = findings(database.url)[1]["scheduler"]
    assert (found["result"], found["fix"]) == ("failed", "start relay-scheduler")


def test_lacking_rights_are_listed_with_the_grant(database: Database) -> None:
    role = f"nobody_{database.name}"
    with database.admin() as admin:
        admin.execute(f"create role {role} login password 'p'")
    code, found = findings(database.server.process.url_of(database.name, role, "p"))
    assert code == 1
    for lacking in ("usage on schema tide", "update on tide.drain", "execute on", "tide.pipeline"):
        assert lacking in found["rights"]["found"]
    assert found["rights"]["fix"] == f"as the owner of the schema: select tide.grant_relay('{role}');"
    with database.connect() as connection:
        connection.execute(f"select tide.grant_relay('{role}')")
    assert findings(database.server.process.url_of(database.name, role, "p"))[1]["rights"]["result"] == "ok"


def test_a_prepared_transaction_that_nobody_ends_is_found(database: Database) -> None:
    make_pipeline(database, {"sink_type": "stdout"})
    with database.connect(autocommit=False) as connection:
        connection.execute("set tide.two_phase = 'on'")
        connection.execute("select tide.outbox_publish('o', '1')")
        connection.execute("prepare transaction 'forgotten'")
    found = findings(database.url)[1]["horizon"]
    assert found["result"] == "warning"
    assert "prepared transaction 'forgotten'" in found["found"] and "rollback prepared 'forgotten'" in found["fix"]


def test_a_publisher_left_open_is_found(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.operations.doctor.database.STALL_SECONDS", 0.05)
    make_pipeline(database, {"sink_type": "stdout"})
    with database.connect(autocommit=False, application_name="shop") as slow:
        slow.execute("select tide.outbox_publish('o', '1')")
        found = wait_until(lambda: (f := findings(database.url)[1]["horizon"])["result"] == "failed" and f)
        assert "application_name shop" in found["found"]
        assert found["fix"].startswith("it is idle in transaction: ")
        assert f"pg_terminate_backend({slow.info.backend_pid})" in found["fix"]


def test_sessions_that_hold_locks_like_ours_are_named(database: Database) -> None:
    make_pipeline(database, {"sink_type": "stdout"})
    assert findings(database.url)[1]["locks"]["result"] == "ok"
    with database.connect(application_name="idle shop") as stranger:
        stranger.execute("select pg_advisory_lock_shared(mark_class, 7) from tide.outbox")
        found = findings(database.url)[1]["locks"]
        assert found["result"] == "warning" and "application_name idle shop" in found["found"]
        assert f"pg_terminate_backend({stranger.info.backend_pid})" in found["fix"]
        stranger.execute("select pg_advisory_unlock_all()")
        stranger.execute("select pg_advisory_lock(%s::bigint)", [lock_key(slot_of("p", ""))])
        found = findings(database.url)[1]["locks"]
        assert found["result"] == "failed" and "holds the lock of pipeline p" in found["found"]
        assert f"pg_terminate_backend({stranger.info.backend_pid})" in found["fix"]


def test_wrong_pipelines_and_unresolved_secrets_are_found(database: Database) -> None:
    make_pipeline(database, {"sink_type": "stdout", "colour": "blue"})
    code, found = findings(database.url)
    assert (code, found["pipeline p"]["result"]) == (1, "failed")
    assert "colour: unknown key" in found["pipeline p"]["found"]
    make_pipeline(
        database,
        {"sink_type": "nats", "url": "nats://h", "stream": "s", "token": "${env:TIDE_SECRET_NOT_SET_ANYWHERE}"},
    )
    found = findings(database.url)[1]
    assert found["pipeline p"]["result"] == "warning"
    assert "${env:TIDE_SECRET_NOT_SET_ANYWHERE}" in found["pipeline p"]["found"]


def test_a_missing_client_library_names_the_extra(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pipeline(database, {"sink_type": "nats", "url": "nats://h", "stream": "s"})
    assert findings(database.url)[1]["pipelines"]["result"] == "ok"
    monkeypatch.setattr(metadata, "requires", lambda _name: ['not-installed-here>=2 ; extra == "nats"'])
    found = findings(database.url)[1]["pipeline p"]
    assert found["result"] == "failed" and "not-installed-here" in found["found"]
    assert "pip install 'tide-relay[nats]'" in found["fix"]


def break_pipelines(database: Database, causes: list[str]) -> None:
    """Pipelines b00, b01 ..., each broken by its cause; of one that is empty the retry is about something else."""
    with database.connect() as connection:
        for number, cause in enumerate(causes):
            name = f"b{number:02}"
            connection.execute("select tide.outbox_create_if_not_exists('o')")
            connection.execute("select tide.relay_set_outbox(%s, 'o', '{\"sink_type\": \"stdout\"}')", [name])
            connection.execute(
                """update tide.drain set outcome = 'failed', needs_operator = %s, error_code = 'auth', error = %s,
                          retry_at = clock_timestamp() where pipeline = %s""",
                [bool(cause), f"pipeline '{name}': {cause or 'connection refused'}", name],
            )


def broken(database: Database) -> list[dict[str, Any]]:
    result = invoke("doctor", "--json", url=database.url, RELAY_BROKER_URL="redis://127.0.0.1:1/0")
    assert result.exit_code == 1
    return [finding for finding in json.loads(result.stdout) if "broken" in finding["found"] and finding["fix"]]


def test_broken_pipelines_are_named_a_line_for_each_cause(database: Database) -> None:
    break_pipelines(database, ["", "wrong password", "no stream", "wrong password"])
    many, one = broken(database)
    assert (many["check"], many["result"]) == ("pipelines", "failed")
    assert many["found"] == "2 pipelines are broken (b01, b03): auth: wrong password"
    assert (one["check"], one["result"], one["found"]) == ("pipeline b02", "failed", "broken: auth: no stream")
    with database.connect() as connection:
        connection.execute("select tide.relay_disable('b02')")
        connection.execute("select tide.relay_set_outbox('b01', 'o', '{\"sink_type\": \"stdout\"}')")
    assert [line["check"] for line in broken(database)] == ["pipeline b03"], "a change lifts it, until it fails again"


def test_of_many_broken_pipelines_a_few_are_named(database: Database) -> None:
    break_pipelines(database, [f"cause {number}" for number in range(15)] + ["wrong password"] * 10)
    lines = broken(database)
    assert [line["found"] for line in lines[1:5]] == [f"broken: auth: cause {number}" for number in range(4)]
    assert lines[0]["found"] == "10 pipelines are broken (b15, b16, b17, b18, b19 and 5 more): auth: wrong password"
    expected = "11 more pipelines are broken, for other causes: b04, b05, b06, b07, b08 and 6 more"
    assert [line["found"] for line in lines[5:]] == [expected]


def test_a_promise_that_a_backend_breaks_is_found(
    database: Database, redis_server: EmbeddedRedis, own_kafka: Callable[..., KafkaServer]
) -> None:
    kafka = own_kafka(offset_metadata=False)
    keys = {"sink_type": "kafka", "brokers": kafka.url, "create_topic": True, "transactional": True}
    make_pipeline(database, keys)

    def is_found() -> bool:
        publish(database)  # it shows at the drain after the first
        found = findings(database.url, redis_server.url)[1].get("pipeline p")
        return found is not None and found["result"] == "warning" and "at least once here" in found["found"]

    with fleet(database.url, redis_server.url):
        wait_until(is_found, 60, "doctor says that metadata of offsets is dropped")
        make_pipeline(database, {"sink_type": "stdout"})
        publish(database)
        wait_until(lambda: "pipeline p" not in findings(database.url, redis_server.url)[1], 60, "it is true no more")


def test_an_outbox_without_a_partition_ahead_is_found(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("select tide.outbox_create('o', partition_size => 1000)")
        assert findings(database.url)[1]["partitions"]["result"] == "ok"
        connection.execute("select tide.outbox_publish('o', '1') from generate_series(1, 1500)")
        found = findings(database.url)[1]["partitions"]
        assert found["result"] == "warning" and "select tide.outbox_extend('o');" in found["fix"]


def test_too_few_connections_are_found(database: Database) -> None:
    with database.admin() as admin:
        admin.execute(f"alter database {database.name} connection limit 3")
    found = findings(database.url)[1]["connections"]
    assert found["result"] == "warning" and "may open" in found["found"]


def test_settings_of_pg_trickle_are_named_as_without_effect(database: Database) -> None:
    assert "settings" not in findings(database.url)[1]
    with database.admin() as admin:
        admin.execute(f"alter database {database.name} set pg_trickle.max_concurrent_refreshes = 8")
        admin.execute(f"alter role tide_owner in database {database.name} set pg_trickle.outbox_enabled = off")
    found = findings(database.url)[1]["settings"]
    assert found["result"] == "warning"
    assert "pg_trickle.max_concurrent_refreshes, pg_trickle.outbox_enabled: " in found["found"]
    assert "tide.setting_set" in found["fix"]


def test_a_pooler_between_is_found(database: Database) -> None:
    with pooler(database) as url:
        found = findings(url)[1]["pooler"]
        assert found["result"] == "warning" and "session mode" in found["fix"]


@contextmanager
def pooler(database: Database) -> Iterator[str]:
    """Passes one client on to PostgreSQL under a process id of its own, as connection poolers do."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server_port = database.server.process.port

        def serve() -> None:
            client, _ = listener.accept()
            with client, socket.create_connection(("127.0.0.1", server_port)) as server:
                threading.Thread(target=_copy, args=(client, server, False), daemon=True).start()
                _copy(server, client, True)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        host = psycopg.conninfo.make_conninfo(database.url, port=port, sslmode="disable", gssencmode="disable")
        yield host
        thread.join(10)


def _copy(source: socket.socket, target: socket.socket, change_key: bool) -> None:
    while data := _received(source):
        # BackendKeyData: 'K', its length, the process id, the secret; in PostgreSQL 18 the secret may be longer.
        at = data.find(b"K\0\0\0") if change_key else -1
        if at >= 0 and data[at + 4] < 64:
            data = data[: at + 5] + b"\0\0\0\1" + data[at + 9 :]
        target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(65536)
    except OSError:
        return b""


def test_workers_of_another_database_are_named_while_ours_wait(
    pg: PostgresServer, database: Database, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    other = pg.create_database()
    make_pipeline(database, {"sink_type": "file", "path": str(tmp_path / "out")})
    with fleet(database.url, redis_server.url, workers=False), fleet(other.url, redis_server.url, scheduler=False):
        wait_until(lambda: "another database do" in findings(database.url, redis_server.url)[1]["workers"]["found"], 30)
        code, found = findings(database.url, redis_server.url)
        assert code == 1 and [f["check"] for f in found.values() if f["result"] == "failed"] == ["workers"]
        assert "RELAY_POSTGRES_URL" in found["workers"]["fix"]
        with fleet(database.url, redis_server.url, scheduler=False):
            wait_until(lambda: findings(database.url, redis_server.url)[0] == 0, 30)
            wait_until(lambda: status(database.url)["state"] == "idle", 40)
    pg.drop_database(other)
