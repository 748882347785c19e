"""`relay doctor` of a fleet: who is missing, who is on another broker; and one cause is one failed finding."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from relay.local.programs import Program, environment, workers_command
from relay.local.servers import EmbeddedRedis
from tests.cli.command import invoke
from tests.cli.test_status import make_pipeline, publish
from tests.e2e.fleet import fleet
from tests.services.postgres import Database
from tests.waiting import wait_until
from tests.web.api import ApiProcess

Found = dict[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.operations.fleet.UNTAKEN_SECONDS", 1.0)
    monkeypatch.setattr("relay.operations.doctor.queues.STARTING_SECONDS", 0.5)
    monkeypatch.setattr("relay.operations.doctor.queues.SIGN_SECONDS", 1.0)


def examined(database: Database, broker_url: str) -> Found:
    """By check. The exit code says whether one failed."""
    result = invoke("doctor", "--json", url=database.url, RELAY_BROKER_URL=broker_url)
    found = json.loads(result.stdout)
    assert result.exit_code == any(finding["result"] == "failed" for finding in found), result.stdout
    return {finding["check"]: finding for finding in found}


def failed(found: Found) -> list[str]:
    return [check for check, finding in found.items() if finding["result"] == "failed"]


def wait_for(database: Database, broker_url: str, check: str, text: str) -> Found:
    """Until that check says so."""

    seen: list[Found] = []

    def says() -> bool:
        seen.append(examined(database, broker_url))
        return text in seen[-1].get(check, {"found": ""})["found"]

    wait_until(says, 40, f"{check}: {text}")
    return seen[-1]


def make_reverse(database: Database, folder: Path) -> None:
    (folder / "in").mkdir()
    config = {"source_type": "file", "path": str(folder / "in" / "*.jsonl")}
    with database.connect() as db:
        db.execute("select tide.inbox_create('i')")
        db.execute("select tide.relay_set_inbox('r', 'i', %s::jsonb)", [json.dumps(config)])


def test_without_workers_one_finding_says_what_waits(
    database: Database, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    make_pipeline(database, {"sink_type": "file", "path": str(tmp_path / "out")})
    make_reverse(database, tmp_path)
    publish(database)
    with fleet(database.url, redis_server.url, workers=False) as programs:
        wait_for(database, redis_server.url, "workers", "in tide.reverse, and it was not taken")
        found = wait_for(database, redis_server.url, "workers", "in tide.forward, and it was not taken")
        assert failed(found) == ["workers"]
        assert found["workers"]["found"].startswith("none is alive; 1 drain has waited for ")
        assert found["workers"]["fix"] == "start workers: relay workers"
        skipped = [finding for finding in found.values() if finding["result"] == "skipped"]
        assert {finding["cause"] for finding in skipped} == {"workers"}
        text = invoke("doctor", url=database.url, RELAY_BROKER_URL=redis_server.url).stdout
        [line] = [line for line in text.splitlines() if "skipped" in line]
        assert line.startswith("– skipped: 3 checks depend on workers, which failed: queue tide.forward, ")
        settings = programs.settings
        command = workers_command(settings, ["tide.forward", "tide.maintenance"])
        some = Program(command, environment(settings, inherit=False), programs.output.append, programs.log.append)
        some.start()
        try:
            found = wait_for(database, redis_server.url, "queue tide.reverse", "no worker serves it")
            wait_for(database, redis_server.url, "queue tide.forward", "1 worker process serves it")
            found = examined(database, redis_server.url)
            assert failed(found) == ["queue tide.reverse"]
            assert "1 drain has waited for " in found["queue tide.reverse"]["found"]
            assert "relay workers --queues tide.reverse" in found["queue tide.reverse"]["fix"]
        finally:
            some.stop()
        assert failed(examined(database, redis_server.url)) == ["workers"], "those that stop say so"


def test_schedulers_and_workers_on_different_brokers_are_found_from_either(
    database: Database, redis_server: EmbeddedRedis, own_redis: Callable[..., EmbeddedRedis], tmp_path: Path
) -> None:
    make_pipeline(database, {"sink_type": "file", "path": str(tmp_path / "out")})
    other = own_redis(persistent=False).start()
    with (
        fleet(database.url, redis_server.url, workers=False),
        fleet(database.url, other.url, scheduler=False) as theirs,
    ):
        found = wait_for(database, redis_server.url, "workers", "on another broker than")
        assert failed(found) == ["workers"]
        assert found["broker of schedulers"]["result"] == "ok"
        assert "1 worker process (" in found["workers"]["found"] and "RELAY_BROKER_URL" in found["workers"]["fix"]
        found = examined(database, other.url)
        assert failed(found) == ["broker of schedulers"]
        assert (
            "where workers of this database wait: its drains do not reach them"
            in found["broker of schedulers"]["found"]
        )
        assert "RELAY_BROKER_URL" in found["broker of schedulers"]["fix"]
        assert other.password not in json.dumps(found) and redis_server.password not in json.dumps(found)
        # The same server under another name is the same broker; another database of it is not.
        with fleet(database.url, redis_server.url, scheduler=False):
            alias = redis_server.url.replace("127.0.0.1", "localhost")
            found = wait_for(database, alias, "queue tide.forward", "and 1 on this broker")
            assert "2 worker processes" in found["queue tide.forward"]["found"]
            assert found["broker of schedulers"]["result"] == "ok"
            found = examined(database, redis_server.url.removesuffix("/0") + "/3")
            assert failed(found) == ["broker of schedulers"]
            assert "workers of this database" not in found["broker of schedulers"]["found"], "they are in another one"
        other.kill()
        found = wait_for(database, redis_server.url, "workers", "cannot use their broker")
        assert failed(found) == ["workers"] and theirs.workers.pid


def test_a_scheduler_that_cannot_reach_its_broker_is_named(database: Database, redis_server: EmbeddedRedis) -> None:
    make_pipeline(database, {"sink_type": "stdout"})
    with fleet(database.url, "redis://:s3cret-of-broker@127.0.0.1:1/0", workers=False):
        found = wait_for(database, redis_server.url, "broker of schedulers", "1 scheduler cannot use its broker")
        # It says so before it owns anything.
        found = wait_for(database, redis_server.url, "scheduler", "1 pipeline")
        assert failed(found) == ["broker of schedulers", "workers"], "workers are missing too"
        assert "127.0.0.1:1" in found["broker of schedulers"]["found"]
        with database.connect() as db:
            said = json.dumps(db.execute("select broker_trouble from tide.scheduler").fetchall())
        assert "127.0.0.1:1" in said and "s3cret" not in said + json.dumps(found)


def test_a_group_without_scheduler_and_versions_that_differ_are_found(
    database: Database, redis_server: EmbeddedRedis
) -> None:
    make_pipeline(database, {"sink_type": "stdout", "relay_group_id": "eu"})
    with fleet(database.url, redis_server.url):
        found = wait_for(database, redis_server.url, "queue tide.forward", "serve")
        found = wait_for(database, redis_server.url, "scheduler", "none of group eu is alive")
        assert failed(found) == ["scheduler"]
        assert "1 pipeline names it: p" in found["scheduler"]["found"]
        assert found["versions"]["result"] == "ok"
        with database.connect() as db:
            db.execute("update tide.process set version = '0.0.9'")
        found = examined(database, redis_server.url)
        assert found["versions"]["result"] == "warning" and "0.0.9 (workers)" in found["versions"]["found"]


def test_relay_api_is_missed_where_webhooks_are_received(
    database: Database, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    assert "relay api" not in examined(database, redis_server.url)
    with database.connect() as db:
        db.execute("select tide.inbox_create('i')")
        config = '{"source_type": "webhook", "secret": "s3cret-of-hook-0123456789"}'
        db.execute("select tide.relay_set_inbox('hook', 'i', %s::jsonb)", [config])
    found = examined(database, redis_server.url)["relay api"]
    assert (found["result"], found["fix"]) == ("failed", "start relay api, with this database")
    assert found["found"] == "none is alive, and 1 pipeline receives webhooks: hook"
    role = f"api_{database.name}"
    with database.admin() as admin, database.connect() as db:
        admin.execute(f"create role {role} login password 'p'")
        db.execute("select tide.grant_api(%s)", [role])
    api = ApiProcess(database.server.process.url_of(database.name, role, "p"), tmp_path)
    try:
        found = wait_for(database, redis_server.url, "relay api", "; 1 pipeline receives webhooks")
        assert found["relay api"]["result"] == "ok"
    finally:
        api.process.terminate()
        api.process.wait(30)
    assert examined(database, redis_server.url)["relay api"]["result"] == "failed"


def test_one_cause_is_one_failed_finding(empty_database: Database, redis_server: EmbeddedRedis) -> None:
    assert failed(examined(empty_database, redis_server.url)) == ["migrations"]
    assert failed(examined(empty_database, "redis://127.0.0.1:1/0")) == ["broker", "migrations"]
    gone = invoke("doctor", "--json", url="postgresql://u@127.0.0.1:1/d", RELAY_BROKER_URL=redis_server.url)
    found = json.loads(gone.stdout)
    assert gone.exit_code == 1 and [f["check"] for f in found if f["result"] == "failed"] == ["connection"]
    assert {f["cause"] for f in found if f["result"] == "skipped"} == {"connection"}
    text = invoke("doctor", url="postgresql://u@127.0.0.1:1/d", RELAY_BROKER_URL=redis_server.url).stdout.splitlines()
    # The last one is longer than a line.
    assert [line[0] for line in text if line[:1] in "✓✗–"] == ["✓", "✗", "–"], text


def test_without_rights_nothing_else_fails(database: Database, redis_server: EmbeddedRedis) -> None:
    make_pipeline(database, {"sink_type": "stdout"})
    role = f"nobody_{database.name}"
    with database.admin() as admin:
        admin.execute(f"create role {role} login password 'p'")
    url = database.server.process.url_of(database.name, role, "p")
    done = invoke("doctor", "--json", url=url, RELAY_BROKER_URL=redis_server.url)
    found = json.loads(done.stdout)
    assert [f["check"] for f in found if f["result"] == "failed"] == ["rights"]
    assert {f["cause"] for f in found if f["result"] == "skipped"} == {"rights"} and done.exit_code == 1


def test_a_session_that_ends_on_the_way_is_one_failure(
    database: Database, redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relay.operations.doctor import database as checks

    def ended(connection: Any, _settings: Any) -> Any:
        with closing(database.admin()) as admin:
            admin.execute("select pg_terminate_backend(%s)", [connection.info.backend_pid])
        connection.execute("select 1")
        yield

    monkeypatch.setattr("relay.operations.doctor.run.OF_SCHEMA", (ended, *checks.CHECKS))
    found = examined(database, redis_server.url)
    assert failed(found) == ["ended"]
    assert {found[check]["result"] for check in ("horizon", "locks", "retention")} == {"skipped"}
