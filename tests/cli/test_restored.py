"""`relay restored`: a database that went back to an earlier time, and receivers that did not."""

import gzip
import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis

from relay.local.servers import EmbeddedRedis, _postgres_programs
from tests.cli.command import environment, invoke, run
from tests.e2e.drains import draining
from tests.fleets.pipelines import Pipelines, Writers
from tests.fleets.processes import running_fleet
from tests.services.kafka import KafkaServer
from tests.services.postgres import Database, PostgresServer
from tests.waiting import wait_until

Config = dict[str, Any]
Received = Callable[[], list[str]]
Receiver = tuple[Config, Received]


@pytest.fixture
def inbox(pg: PostgresServer) -> Iterator[Receiver]:
    there = pg.create_database()
    with there.connect() as db:
        db.execute("select tide.inbox_create('orders_in')")
        yield (
            {"sink_type": "inbox", "inbox": "orders_in", "postgres_url": there.url},
            lambda: [row[0] for row in db.execute("select payload from tide.orders_in order by inbox_seq")],
        )
    pg.drop_database(there)


@pytest.fixture
def redis(redis_server: EmbeddedRedis) -> Iterator[Receiver]:
    with Redis.from_url(redis_server.url) as client:
        yield (
            {"sink_type": "redis", "url": redis_server.url, "stream": "restored", "exactly_once": True},
            lambda: [json.loads(entry[b"body"]) for _, entry in client.xrange("restored")],  # type: ignore[union-attr]
        )


@pytest.fixture
def kafka(kafka_server: KafkaServer) -> Receiver:
    topic = f"restored-{uuid.uuid4().hex[:8]}"
    kafka_server.create_topic(topic, 1)
    access = {"brokers": kafka_server.access["bootstrap.servers"]}
    keys = {"sasl_username": "sasl.username", "sasl_password": "sasl.password", "ssl_ca": "ssl.ca.location"}
    access |= {ours: kafka_server.access[theirs] for ours, theirs in keys.items() if theirs in kafka_server.access}
    access |= {"security_protocol": kafka_server.access["security.protocol"].lower()}
    return (
        {"sink_type": "kafka", "topic": topic, "transactional": True, "transactional_id": topic, **access},
        lambda: [json.loads(record.value or b"") for record in kafka_server.read_all(topic, "read_committed")],
    )


@pytest.fixture
def object_storage(tmp_path: Path) -> Receiver:
    def received() -> list[str]:
        found = []
        for path in sorted(path for path in (tmp_path / "lake").rglob("*") if path.is_file()):
            text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            found += [json.loads(line)["payload"] for line in text.splitlines()]
        return found

    (tmp_path / "lake").mkdir()
    return {"sink_type": "object_storage", "path": str(tmp_path / "lake"), "max_age_ms": 100}, received


def program(name: str, *arguments: object) -> None:
    """A program of the server."""
    path = f"{_postgres_programs(18)}:{environment()['PATH']}"
    done = subprocess.run(
        [name, *map(str, arguments)],
        env=environment(PATH=path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("skips", [False, True], ids=["as restored", "ids skipped"])
@pytest.mark.parametrize("receiver", ["inbox", "redis", "kafka", "object_storage"])
def test_nothing_new_is_dropped_or_written_over_once_the_ids_have_skipped(
    database: Database, pg: PostgresServer, tmp_path: Path, request: pytest.FixtureRequest, receiver: str, skips: bool
) -> None:
    config, received = request.getfixturevalue(receiver)
    forgotten, new = [f"forgotten {n}" for n in range(3)], [f"new {n}" for n in range(3)]
    publish = "select tide.outbox_publish('orders', to_jsonb(%s::text))"
    with draining(database) as drains:
        drains.query("select tide.outbox_create('orders')")
        drains.query("select tide.relay_set_outbox('orders-out', 'orders', %s)", json.dumps(config))
        drains.query(publish, "kept")
        drains.until("orders-out", lambda: received() == ["kept"])
        program("pg_dump", "--format=custom", "--schema=tide", f"--file={tmp_path / 'dump'}", database.url)
        for text in forgotten:
            drains.query(publish, text)
        drains.until("orders-out", lambda: len(received()) == 4)
        drains.until_idle("orders-out")

    with ExitStack() as stack:
        later = pg.create_database(migrated=False)
        stack.callback(pg.drop_database, later)
        program("pg_restore", "--no-owner", "--no-privileges", f"--dbname={later.url}", tmp_path / "dump")
        if skips:
            done = invoke("restored", url=later.url)
            assert done.exit_code == 0, done.output
            assert "outbox orders: new ids begin at 1000002 (last given: 1)" in done.output
        drains = stack.enter_context(draining(later))
        for text in new:
            drains.query(publish, text)
        # Redis sees that an entry belongs to another message, and the pipeline stops; the others see nothing.
        ended = """select g.offset_id = tide.outbox_last_id(g.outbox_id) or d.error_code = 'foreign_stream'
                     from tide.consumer_group g, tide.drain d"""
        drains.until("orders-out", lambda: drains.query(ended) == [(True,)])
        assert drains.query("select count(*) from tide.dead_letter") == [(0,)]
        found = received()
    everything = ["kept", *forgotten, *new]
    assert found == everything if skips else set(found) < set(everything), found


def test_what_would_be_done_is_said_and_not_done(database: Database, tmp_path: Path) -> None:
    with database.connect() as db:
        db.execute("select tide.outbox_create('orders'); select tide.outbox_create('bills')")
        db.execute("select tide.inbox_create('orders_in')")
        db.execute("select tide.relay_set_outbox('out', 'orders', '{\"sink_type\": \"stdout\"}')")
        source = {"source_type": "redis", "url": "redis://x", "stream": "s"}
        db.execute("select tide.relay_set_inbox('in', 'orders_in', %s)", [json.dumps(source)])
        db.execute("select tide.outbox_publish('orders', '1')")
        planned = invoke("restored", "--dry-run", "--margin", "5000", url=database.url)
        assert planned.exit_code == 0
        assert "outbox orders: new ids would begin at 5002 (last given: 1)" in planned.output
        assert "pipeline out (stdout): continues from its restored offset" in planned.output
        assert "pipeline in (redis): cannot go back on its own" in planned.output and "XGROUP SETID" in planned.output
        assert db.execute("select tide.outbox_publish('orders', '2')").fetchall() == [(2,)]
        done = json.loads(invoke("restored", "orders", "--json", url=database.url).stdout)
        assert [(skip["outbox"], skip["last_id"], skip["error"]) for skip in done["outboxes"]] == [("orders", 2, None)]
        [(next_id,)] = db.execute("select tide.outbox_publish('orders', '3')").fetchall()
        assert next_id == done["outboxes"][0]["first_id"] > 1_000_000
        assert db.execute("select tide.outbox_publish('bills', '1')").fetchall() == [(1,)]
    missing = run("restored", "nope", "--postgres-url", database.url, cwd=tmp_path)
    assert missing.returncode == 1 and 'outbox "nope" does not exist' in missing.stderr


def test_an_outbox_with_a_publisher_in_the_way_is_named_and_the_others_skip(database: Database) -> None:
    with database.connect() as db, psycopg.connect(database.url) as slow:
        db.execute("select tide.outbox_create('bills'), tide.outbox_create('orders', partition_size => 1000)")
        slow.execute("select tide.outbox_publish('orders', '1')")
        done = invoke("restored", "--timeout", "1", url=database.url)
        assert done.exit_code == 1
        assert 'the ids of outbox "orders" were not moved: a transaction has its partitions open' in done.output
        assert "outbox bills: new ids begin at 1000001" in done.output and "outbox orders:" not in done.output
        slow.commit()
        assert "outbox orders: new ids begin at 1000" in invoke("restored", "orders", url=database.url).output


def test_ids_skip_while_applications_publish_and_a_fleet_delivers(
    database: Database, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    pipelines = Pipelines(database.url, tmp_path / "delivered")
    names = ["orders", "bills"]
    with running_fleet(database.fleet_url(), redis_server.url, tmp_path / "fleet") as fleet:
        for name in names:
            pipelines.make(name)
        fleet.scheduler()
        fleet.workers()
        fleet.wait_ready()
        with Writers(pipelines, names, 300) as writers:
            for number in range(1, 4):
                wait_until(lambda: writers.have_published(number * 300), 90, "applications have published")  # noqa: B023
                done = invoke("restored", url=database.url)
                assert done.exit_code == 0, done.output
            wait_until(lambda: writers.have_published(1200), 90, "applications have published")
        pipelines.wait_settled(90)
    verdict = pipelines.judge_all()
    assert verdict.is_right and verdict.duplicates == 0, verdict
    for name in names:
        assert pipelines.committed(name)[-1] > 3_000_000


def test_a_copy_without_sequences_is_named_and_then_delivers(
    database: Database, pg: PostgresServer, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """As logical replication leaves it: the rows are there, and every sequence is where it was made."""
    with database.connect() as db:
        db.execute("select tide.outbox_create('orders'); select tide.inbox_create('orders_in')")
        Pipelines(database.url, tmp_path / "delivered").make("orders-out", "orders")
        db.execute("update tide.consumer_group set offset_id = 50000000")
        db.execute("insert into tide.orders_in (inbox_seq, event_id) overriding system value values (7000, 'a')")
    program("pg_dump", "--format=custom", f"--file={tmp_path / 'dump'}", database.url)
    program("pg_restore", "--list", f"--file={tmp_path / 'all'}", tmp_path / "dump")
    kept = [line for line in (tmp_path / "all").read_text().splitlines() if "SEQUENCE SET" not in line]
    (tmp_path / "kept").write_text("\n".join(kept))
    with ExitStack() as stack:
        copy = pg.create_database(migrated=False)
        stack.callback(pg.drop_database, copy)
        kept_only = f"--use-list={tmp_path / 'kept'}"
        program("pg_restore", "--no-owner", "--no-privileges", kept_only, f"--dbname={copy.url}", tmp_path / "dump")
        ids = finding_of_ids(copy.url)
        assert ids["result"] == "failed" and "relay restored" in ids["fix"]
        assert "its offset at 50000000" in ids["found"] and "last id of outbox orders is 0" in ids["found"]
        [status] = json.loads(invoke("status", "--json", url=copy.url).stdout)
        assert status["state"] == "held" and "its offset 50000000 is above 0, the last id" in status["why"]

        pipelines = Pipelines(copy.url, tmp_path / "delivered")
        pipelines.outbox_of["orders-out"] = "orders"
        fleet = stack.enter_context(running_fleet(copy.fleet_url(), redis_server.url, tmp_path / "fleet"))
        scheduler = fleet.scheduler()
        fleet.workers()
        fleet.wait_ready()
        wait_until(lambda: scheduler.says("new messages are passed over"), 30, "the scheduler names it")
        planned = invoke("restored", "--dry-run", url=copy.url)
        assert "new ids would begin at 51" in planned.output and "highest stored: 50000000" in planned.output
        done = invoke("restored", url=copy.url)
        assert done.exit_code == 0, done.output
        assert "outbox orders: new ids begin at 51" in done.output
        assert "sequence tide.orders_in_inbox_seq_seq: goes on above 7000" in done.output
        assert "tide.consumer_group_group_id_seq: goes on above" in done.output
        pipelines.wait_delivered("orders-out", pipelines.publish("orders", 5), 60)
        with copy.connect() as db:
            db.execute("select tide.outbox_create('bills'); select tide.inbox_create('bills_in')")
            db.execute("insert into tide.orders_in (event_id) values ('b')")
            assert db.execute("select max(inbox_seq) from tide.orders_in").fetchone()[0] > 7000  # type: ignore[index]
        assert finding_of_ids(copy.url)["result"] == "ok"


def finding_of_ids(url: str) -> dict[str, Any]:
    found = json.loads(invoke("doctor", "--json", url=url, RELAY_BROKER_URL="redis://127.0.0.1:1/0").stdout)
    return next(finding for finding in found if finding["check"] == "ids")
