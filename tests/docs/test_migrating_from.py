"""Migrating from other systems, step by step as printed: nothing is lost, and consumers see no difference."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from relay.local.servers import EmbeddedRedis
from tests.cli import pg_tide
from tests.cli.command import invoke
from tests.docs.pages import text_of
from tests.e2e.drains import draining
from tests.e2e.fleet import fleet
from tests.services.kafka import KafkaRecord, KafkaServer
from tests.services.postgres import Database
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(240)
TOPICS = "outbox.event.order", "outbox.event.customer"
FIRST, SECOND = "7a4b4f6c-6f0e-4d43-9a35-0ab4e3f3a001", "7a4b4f6c-6f0e-4d43-9a35-0ab4e3f3a002"


def blocks(page: str, language: str) -> list[str]:
    """Those in lists too."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text_of(page), re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def commands(page: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for block in blocks(page, "sh") for line in block.splitlines()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_consumers_of_debeziums_router_see_no_difference(
    database: Database, redis_server: EmbeddedRedis, own_kafka: Callable[..., KafkaServer], folder: Path
) -> None:
    page = "migrating-from/debezium"
    kafka = own_kafka()
    for topic in TOPICS:
        kafka.create_topic(topic)
    [config] = blocks(page, "json")
    (folder / "kafka.json").write_text(config.replace("localhost:9092", kafka.url))
    made, routed, reached, slots, after, back = [
        statement for block in blocks(page, "sql") for statement in _parts(block)
    ]
    try_out, switch, gone = commands(page)
    with database.connect() as db, fleet(database.url, redis_server.url):
        db.execute(made)
        tried = invoke(*try_out, url=database.url)
        assert tried.exit_code == 0, tried.output
        assert "could be set, from table public.outbox, outbox public.outbox" in tried.stdout
        assert db.execute("select count(*) from tide.outbox").fetchone() == (0,), "it was only tried"
        for statement in (routed, reached, slots):
            db.execute(statement)
        for command in (switch, gone):
            done = invoke(*command, url=database.url)
            assert done.exit_code == 0, done.output
        db.execute(after)
        db.execute("insert into public.outbox values (gen_random_uuid(), 'customer', 'customer-7', 'Gone', null)")
        wait_until(lambda: len(_read(kafka, *TOPICS)) == 3, 90, "all arrived")
        one, two, gone_for_good = _read(kafka, *TOPICS)
        # What the router sends: key, value and its headers, and nothing beside.
        for record, event_id, kind in ((one, FIRST, b"OrderCreated"), (two, SECOND, b"OrderPaid")):
            assert (record.key, json.loads(record.value or b"")) == (b"customer-7", {"total": 9.5})
            assert sorted(record.headers) == [("eventType", kind), ("id", event_id.encode())]
        assert (gone_for_good.key, gone_for_good.value) == (b"customer-7", None), "a tombstone"
        assert [name for name, _ in sorted(gone_for_good.headers)] == ["eventType", "id"]
        db.execute(back)
        db.execute("insert into public.outbox values (gen_random_uuid(), 'order', 'k', 't', '1')")
    assert len(_read(kafka, TOPICS[0])) == 2


def _parts(block: str) -> list[str]:
    """The statements of a block that look at servers are apart: they are executed one by one."""
    return block.strip().splitlines() if "pg_current_wal_lsn" in block else [block]


def _read(kafka: KafkaServer, *topics: str) -> list[KafkaRecord]:
    return [record for topic in topics for record in kafka.read_all(topic)]


def test_nothing_of_pg_tide_is_lost(empty_database: Database, folder: Path) -> None:
    page = "migrating-from/pg-tide"
    pg_tide.install(empty_database, str(folder / "orders.jsonl"))
    renamed, looked = blocks(page, "sql")
    with psycopg.connect(empty_database.url, autocommit=True) as db:
        db.execute(renamed)
        for command in commands(page):
            done = invoke(*command, url=empty_database.url)
            assert done.exit_code == 0, done.output
        db.execute(looked)
        db.execute("""select tide.outbox_publish('orders', '{"n": "new"}', '{"type": "made"}')""")
        with draining(empty_database) as drains:
            drains.until_idle("orders-to-file")
    delivered = [json.loads(line) for line in (folder / "orders.jsonl").read_text().splitlines()]
    assert [(line["id"], line["payload"]["n"]) for line in delivered] == [
        ("orders:5000008", 8), ("orders:5000010", 10), ("orders:5000011", "new")]  # fmt: skip
