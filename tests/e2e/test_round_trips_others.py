"""There and back again where it is no queue in between: another database's outbox, a pipe, objects."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet  # type: ignore[import-untyped]
import pytest
from psycopg.types.json import Jsonb

from tests.cli.command import invoke
from tests.e2e.drains import Drains, draining
from tests.e2e.systems import LARGE, System
from tests.e2e.trips import assert_arrived, messages, publish
from tests.services.moto import MotoServer
from tests.services.postgres import Database

PLAIN = System({})


@pytest.fixture
def drains(database: Database) -> Iterator[Drains]:
    with draining(database) as made:
        yield made


@pytest.fixture
def origin(database: Database) -> Iterator[Database]:
    """Another database than that of the inbox."""
    made = database.server.create_database()
    yield made
    database.server.drop_database(made)


def test_an_outbox_of_another_database_comes_as_it_was(database: Database, origin: Database, drains: Drains) -> None:
    sent = messages(PLAIN, "raw")
    publish(origin, "orders", sent)
    source = {"source_type": "outbox", "postgres_url": origin.url, "outbox": "orders", "slice_ms": 150}
    set_inbox(drains, source | {"max_message_bytes": 2 * LARGE})
    drains.until("back", lambda: count(drains) == len(sent))
    drains.drain("back")
    assert_arrived(origin, database, "orders", "arrived", PLAIN, "raw")
    assert drains.query("select * from tide.dead_letter") == []


@pytest.mark.parametrize("wire_format", ["envelope", "cloudevents", "debezium"])
def test_what_workers_write_to_standard_output_can_be_piped_in(
    database: Database, drains: Drains, capfdbinary: pytest.CaptureFixture[bytes], wire_format: str
) -> None:
    system = System({}, keeps_headers=False)
    sent = messages(system, wire_format)
    publish(database, "orders", sent)
    set_inbox(
        drains,
        {"source_type": "stdin", "wire_format": wire_format, "max_line_bytes": 2 * LARGE}
        | {"max_message_bytes": 2 * LARGE},
    )
    set_outbox(drains, {"sink_type": "stdout", "wire_format": wire_format})
    capfdbinary.readouterr()
    drains.until_idle("there")
    # Logs come here too, in the process of a test.
    lines = b"".join(line for line in capfdbinary.readouterr().out.splitlines(True) if line.startswith(b"{"))
    for _ in range(2):
        done = invoke("receive", "back", "--json", url=database.url, stdin=lines)
        assert done.exit_code == 0, done.output
        assert_arrived(database, database, "orders", "arrived", system, wire_format)


def test_lines_of_a_bucket_hold_every_message_in_order(
    database: Database, drains: Drains, moto_server: MotoServer
) -> None:
    """There is no source for objects: a reader that knows nothing of us brings them back."""
    sent = messages(PLAIN, "envelope")
    publish(database, "orders", sent)
    bucket = f"round-trip-{database.name.replace('_', '-')}"
    place = moto_server.config | {"bucket": bucket, "create": True}
    set_outbox(drains, {"sink_type": "object_storage", "max_rows": 50, "max_age_ms": 10} | place)
    drains.until_idle("there")
    objects = list(objects_of(moto_server, bucket))
    assert len(objects) == -(-len(sent) // 50)
    store(
        drains,
        "l ->> 'id', l -> 'payload', l ->> 'key', l -> 'headers'",
        [line.decode() for data in objects for line in gzip.decompress(data).splitlines()],
    )
    assert_arrived(database, database, "orders", "arrived", PLAIN, "envelope")


def test_parquet_in_a_folder_holds_every_message_in_order(database: Database, drains: Drains, tmp_path: Path) -> None:
    sent = messages(PLAIN, "raw")
    publish(database, "orders", sent)
    kind = {"format": "parquet", "wire_format": "raw", "path": str(tmp_path)}
    set_outbox(drains, {"sink_type": "object_storage", "max_rows": 50, "max_age_ms": 10} | kind)
    drains.until_idle("there")
    objects = sorted(tmp_path.glob("*.parquet"))
    assert len(objects) == -(-len(sent) // 50)
    rows = [row for path in objects for row in pyarrow.parquet.read_table(path).to_pylist()]
    store(
        drains,
        "(l ->> 'outbox') || ':' || (l ->> 'id'), (l ->> 'payload')::jsonb, l ->> 'key', (l ->> 'headers')::jsonb",
        [json.dumps(row, default=str) for row in rows],
    )
    assert_arrived(database, database, "orders", "arrived", PLAIN, "raw")


def store(drains: Drains, columns: str, lines: list[str]) -> None:
    """Writes what was read into an inbox: `columns` finds id, payload, key and headers in `l`, a line of JSON."""
    drains.query("select tide.inbox_create('arrived')")
    drains.query(
        f"""insert into tide.arrived (event_id, payload, aggregate_id, headers, event_type, trace_id)
            select id, payload, key, headers, headers ->> 'type', substr(headers ->> 'traceparent', 4, 32)
              from unnest(%s::jsonb[]) with ordinality as read (l, n)
             cross join lateral (select {columns}) as found (id, payload, key, headers)
             order by n""",
        lines,
    )


def set_outbox(drains: Drains, config: dict[str, Any]) -> None:
    drains.query("select tide.relay_set_outbox('there', 'orders', %s)", Jsonb(config))


def set_inbox(drains: Drains, config: dict[str, Any]) -> None:
    drains.query("select tide.inbox_create('arrived')")
    drains.query("select tide.relay_set_inbox('back', 'arrived', %s)", Jsonb(config))


def count(drains: Drains) -> int:
    return int(drains.query("select count(*) from tide.arrived")[0][0])


def objects_of(server: MotoServer, bucket: str) -> Iterator[bytes]:
    """All of a bucket, by name."""
    s3 = server.client("s3")
    for found in s3.list_objects_v2(Bucket=bucket).get("Contents", []):
        yield s3.get_object(Bucket=bucket, Key=found["Key"])["Body"].read()
