"""`relay import pg-tide`: everything that it knows is here, with its ids and offsets, and nothing of it has changed."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay.operations.pg_tide.translate import forward, reverse
from tests.cli import pg_tide
from tests.cli.command import invoke
from tests.services.postgres import Database
from tests.sql.security.logins import logins


@pytest.fixture
def theirs(empty_database: Database, tmp_path: Path) -> Database:
    return prepared(empty_database, tmp_path)


def prepared(database: Database, tmp_path: Path, *, old: bool = False) -> Database:
    """A database of pg_tide whose schema was renamed, with ours beside it."""
    pg_tide.install(database, str(tmp_path / "orders.jsonl"), old=old)
    with database.connect() as connection:
        connection.execute("alter schema tide rename to old_tide")
    assert invoke("migrate", url=database.url).exit_code == 0
    return database


def imported(database: Database, *options: str) -> list[str]:
    result = invoke("import", "pg-tide", *options, url=database.url)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def rows(database: Database, statement: str) -> list[tuple[Any, ...]]:
    with database.connect() as connection:
        return connection.execute(statement).fetchall()  # type: ignore[arg-type]


def everything(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Of theirs: each table and its rows."""
    tables = rows(database, "select oid::regclass::text from pg_class where relkind = 'r' and relname !~ '^pg_'"
                            " and relnamespace = 'old_tide'::regnamespace")  # fmt: skip
    return {table: rows(database, f"select t.* from {table} t order by t::text") for (table,) in tables}


MESSAGES = (
    "select o.name, m.id, m.payload, m.headers from tide.message m join tide.outbox o using (outbox_id) order by m.id"
)
OFFSETS = "select g.name, g.offset_id, g.polled from tide.consumer_group g order by 1"


@pytest.mark.parametrize("old", [False, True])
def test_everything_comes_over_with_ids_and_offsets(empty_database: Database, tmp_path: Path, old: bool) -> None:
    theirs = prepared(empty_database, tmp_path, old=old)
    before = everything(theirs)
    imported(theirs, "--messages")
    assert rows(theirs, "select name, enabled, retention_hours from tide.outbox order by 1") == [
        ("idle", True, 24), ("mails", False, 24), ("orders", True, 48)]  # fmt: skip
    # Above 0, for orders-off has delivered nothing yet; mails above 5000003.
    assert rows(theirs, MESSAGES) == [
        (name, 5_000_000 + n, {"n": n}, {} if n == 4 else {"type": "made"})
        for n in range(1, 11)
        for name in ["orders" if n % 2 == 0 else "mails"]
        if name == "orders" or n > 3
    ]
    assert rows(theirs, OFFSETS) == [
        ("billing", 5_000_004, True), ("mails-to-nats", 5_000_003, False), ("orders-off", 0, False),
        ("orders-to-file", 5_000_006, False), ("to-slack", 0, False)]  # fmt: skip
    assert rows(theirs, "select name, enabled from tide.pipeline order by 1") == [
        ("commands-in", False), ("orders-off", False), ("orders-to-file", False)]  # fmt: skip
    received = "select event_id, payload, processed_at is null, retry_count from tide.commands order by 1"
    assert rows(theirs, received) == [
        ("e-1", {"c": 1}, False, 0), ("e-2", {"c": 2}, True, 2)]  # fmt: skip
    assert everything(theirs) == before
    published = "select tide.outbox_publish('orders', '1'), tide.outbox_publish('idle', '2')"
    assert rows(theirs, published) == [(5_000_011, 1)]


def test_the_messages_lie_in_partitions_of_their_own(theirs: Database) -> None:
    imported(theirs, "--messages")
    found = rows(theirs, "select distinct tableoid::regclass::text like '%rest' from tide.message")
    assert found == [(False,)]


def test_what_is_left_to_people_is_told(theirs: Database) -> None:
    said = "\n".join(imported(theirs, "--messages"))
    assert "by hand: pipeline to-slack was not created: " in said
    assert "mails-to-nats was not created: stream: is missing" in said
    assert "to read tide.commands" in said
    config = {"sink_type": "nats", "url": "nats://localhost", "stream": "mails"}
    made = invoke("pipeline", "set", "mails-to-nats", "mails", "--config", json.dumps(config), url=theirs.url)
    assert made.exit_code == 0
    assert ("mails-to-nats", 5_000_003, False) in rows(theirs, OFFSETS), "it goes on from there"


def test_without_messages_ids_go_on_and_what_is_left_behind_is_counted(theirs: Database) -> None:
    said = imported(theirs)
    assert "by hand: outbox orders: 5 messages are not copied: see --messages" in said
    assert rows(theirs, MESSAGES) == []
    assert rows(theirs, "select tide.outbox_publish('orders', '1')") == [(5_000_011,)]
    assert ("orders-to-file", 5_000_010, False) in rows(theirs, OFFSETS)


def test_a_second_call_changes_nothing_and_a_dry_run_neither(theirs: Database) -> None:
    told = imported(theirs, "--messages", "--dry-run")
    assert rows(theirs, "select count(*) from tide.outbox") == [(0,)]
    assert imported(theirs, "--messages") == told
    state = [rows(theirs, statement) for statement in (MESSAGES, OFFSETS, "select * from tide.pipeline order by 1")]
    again = imported(theirs, "--messages", "--enable")
    assert "pipeline orders-to-file exists already: not changed" in again
    assert state == [
        rows(theirs, statement) for statement in (MESSAGES, OFFSETS, "select * from tide.pipeline order by 1")
    ]


def test_enable_enables_what_was_enabled_there(theirs: Database) -> None:
    imported(theirs, "--enable")
    assert rows(theirs, "select name, enabled from tide.pipeline order by 1") == [
        ("commands-in", True), ("orders-off", False), ("orders-to-file", True)]  # fmt: skip


def test_a_writer_that_is_open_is_waited_for(theirs: Database) -> None:
    """Its message would be left behind."""
    with theirs.connect() as writer, writer.transaction():
        writer.execute("insert into old_tide.tide_outbox_messages (outbox_name, payload) values ('orders', '1')")
        with (
            psycopg.connect(theirs.url, options="-c lock_timeout=200") as other,
            pytest.raises(psycopg.errors.LockNotAvailable),
        ):
            other.execute("lock table old_tide.tide_outbox_messages in share mode")
        refused = invoke("import", "pg-tide", "--messages", url=theirs.url + "?options=-c%20lock_timeout%3D300")
        assert refused.exit_code == 1
    assert rows(theirs, "select count(*) from tide.outbox") == [(0,)]


def test_without_a_catalog_it_says_what_it_looks_for(database: Database) -> None:
    refused = invoke("import", "pg-tide", url=database.url)
    assert refused.exit_code == 1
    assert "name it: --schema old_tide" in refused.stderr


EVIL = """
    create schema mallory authorization mallory; grant mallory to tide_owner; set role mallory;
    create table mallory.sprung (who text);
    create type mallory.mood as enum ('good');
    create function mallory.evil() returns text language plpgsql as
        $$ begin insert into mallory.sprung values (current_user); return 'x'; end $$;
    create function mallory.told(mallory.mood) returns json language plpgsql as
        $$ begin perform mallory.evil(); return '1'; end $$;
    create cast (mallory.mood as json) with function mallory.told(mallory.mood);"""
TABLE = "create table {0} (outbox_name mallory.mood default 'good'); insert into {0} default values"
VIEW = "create view {0} as select mallory.evil() as outbox_name, 1 as id, mallory.evil() as event_id"


@pytest.mark.parametrize("kind", [TABLE, VIEW], ids=["table", "view"])
def test_only_ordinary_tables_of_a_trusted_owner_are_read(theirs: Database, kind: str) -> None:
    """Others would run their code as the one that imports."""
    with logins(theirs) as make, theirs.admin() as admin:
        make(name="mallory")
        try:
            admin.execute(EVIL)
            admin.execute(kind.format("mallory.tide_outbox_config"))
            imported(theirs, "--dry-run")  # the one that is trusted is found
            refused = invoke("import", "pg-tide", "--schema", "mallory", url=theirs.url)
            assert (refused.exit_code, '"mallory"."tide_outbox_config"' in refused.stderr) == (1, True)
            for table in ("relay_consumer_offsets", "tide_outbox_messages", "commands_inbox"):
                admin.execute(f"reset role; alter table old_tide.{table} rename to kept")
                admin.execute("grant all on schema old_tide to mallory; set role mallory")
                admin.execute(kind.format(f"old_tide.{table}"))
                refused = invoke("import", "pg-tide", "--messages", url=theirs.url)
                assert (refused.exit_code, f'"{table}"' in refused.stderr) == (1, True), refused.stderr
                admin.execute(f"drop {kind.split()[1]} old_tide.{table}; reset role")
                admin.execute(f"alter table old_tide.kept rename to {table}")
            assert admin.execute("select who from mallory.sprung where who <> 'mallory'").fetchall() == []
        finally:
            admin.execute("reset role; drop schema mallory cascade")
    assert rows(theirs, "select count(*) from tide.outbox") == [(0,)]


def test_configurations_of_every_shape_are_translated() -> None:
    canonical = pg_tide.forward("orders", "kafka", {"brokers": "k:9092", "topic_template": "o.{op}"})
    first = {"outbox": "orders", "sink": "kafka", "batch_size": 50, "params": {"brokers": "k:9092", "topic": "o.{op}"}}
    flat = {"outbox": "orders", "sink_type": "kafka", "batch_size": 50, "brokers": "k:9092", "topic": "o.{op}"}
    for shape in (canonical, first, flat):
        made = forward(shape)
        assert (made.box, made.problem, made.left_out) == ("orders", None, [])
        assert made.config == {"sink_type": "kafka", "batch_size": 50, "brokers": "k:9092", "topic": "o.{op}"}
    made = reverse({"inbox": "commands", "source": "redis", "params": {"url": "redis://r", "stream_key": "c", "x": 1}})
    assert (made.box, made.config["stream"], made.left_out, made.problem) == ("commands", "c", ["x"], None)


def test_units_and_negations_are_translated_too() -> None:
    made = forward(
        pg_tide.forward("o", "webhook", {"url": "https://h/x", "timeout_secs": 5, "ssrf_protection": False})
        | {"transforms": [], "dlq": {"enabled": True}}
    )
    assert (made.problem, made.left_out) == (None, ["transforms", "dlq"])
    assert (made.config["request_timeout_ms"], made.config["allow_private_network"]) == (5000, True)
