"""From an outbox into an inbox through every wire format, and through the outbox source: equal for PostgreSQL."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from psycopg.rows import args_row

from relay.backends.postgresql.source import OutboxSource
from relay.inbox.rows import write
from relay.models import InboxRow, Message, Received
from relay.sql import query
from relay.wire.decode import Decoder
from relay.wire.encode import FORMATS, Wire
from relay.wire.formats.base import Binding
from tests.backends.postgresql.outbox_source_harness import OUTBOX, publish
from tests.nesting import DEPTH
from tests.services.postgres import Database

PAYLOADS = [
    "{}",
    "null",
    "[]",
    '""',
    "false",
    '{"n": 12345678901234567890123, "f": 0.1000000000000000055511151231257827, "g": 1.10, "h": -1e400}',
    '{"emoji": "😀 日本語", "nul": "\\\\u0000", "tab": "\\t", "quote": "\\""}',
    '{"a": ' * DEPTH + "1" + "}" * DEPTH,
    json.dumps({"big": "x" * 1_000_000}),
    '{"payload": {"data": 1}, "schema": null, "specversion": "1.0"}',
]
HEADERS: dict[str, Any] = {"type": "order.paid", "tenant": 'Zoë "日本" %41', "Mixed-Case": "x y", "n": 7}


@pytest.fixture
def connection(database: Database) -> Any:
    with database.connect() as connection:
        connection.execute("select tide.outbox_create(%s, max_payload_bytes => 10000000)", [OUTBOX])
        connection.execute("select tide.inbox_create('arrived')")
        for number, payload in enumerate(PAYLOADS):
            publish(connection, payload, HEADERS, f"key {number} é")
        yield connection


def published(connection: Any) -> list[Message]:
    parameters = {"outbox_id": 1, "after": 0, "horizon": None, "max_messages": 1000, "max_bytes": 100_000_000}
    connection.execute(query("outbox_horizon"), parameters)
    cursor = connection.cursor(row_factory=args_row(Message))
    return list(cursor.execute(query("outbox_read"), parameters, binary=True))


def store(connection: Any, received: Sequence[Received], decoder: Decoder) -> None:
    rows = [decoder.decode(message) for message in received]
    assert write(connection, "arrived", [row for row in rows if isinstance(row, InboxRow)]) == len(PAYLOADS)


def assert_arrived(connection: Any, *, has_tenant: bool = True) -> None:
    """Each message as one row, in order, its payload equal as jsonb. Debezium's envelope carries no further headers."""
    rows = connection.execute(
        "select i.event_id, i.payload = m.payload, i.aggregate_id = m.key, i.event_type, i.headers ->> 'tenant' "
        "from tide.message m left join tide.arrived i on i.event_id = %s || ':' || m.id order by i.inbox_seq",
        [OUTBOX],
    ).fetchall()
    assert rows == [
        (f"{OUTBOX}:{number}", True, True, "order.paid", HEADERS["tenant"] if has_tenant else None)
        for number in range(1, len(PAYLOADS) + 1)
    ]


WAYS: list[tuple[str, bool, Binding | None]] = [
    ("raw", True, None),
    ("envelope", False, None),
    *[("cloudevents", True, binding) for binding in ("kafka", "http", "nats", "amqp", None)],  # type: ignore[list-item]
    ("cloudevents_structured", False, "kafka"),
    ("debezium", True, None),
    ("debezium", False, None),
]


def test_every_wire_format_is_among_the_ways() -> None:
    assert {wire_format for wire_format, _, _ in WAYS} == FORMATS.keys()


@pytest.mark.parametrize(("wire_format", "keeps_headers", "binding"), WAYS)
def test_every_wire_format_brings_it_unchanged(
    connection: Any, wire_format: str, keeps_headers: bool, binding: Binding | None
) -> None:
    wire = Wire(
        outbox=OUTBOX,
        pipeline="p",
        subject_template="{outbox}",
        wire_format=wire_format,
        keeps_headers=keeps_headers,
        binding=binding,
    )
    event_id = "{header.relay-id}" if wire_format == "raw" else None
    decoder = Decoder("p", wire_format=wire_format, event_id=event_id, max_message_bytes=10_000_000)
    records = wire.records(published(connection))
    # What keeps no headers keeps no key beside the body either, such as a file.
    received = [Received("x", of.body, of.headers, of.key if keeps_headers else None) for of in records]
    store(connection, received, decoder)
    assert_arrived(connection, has_tenant=(wire_format, keeps_headers) != ("debezium", False))


def test_the_outbox_source_brings_it_unchanged(connection: Any, database: Database) -> None:
    config = OutboxSource.config_model.model_validate({"postgres_url": database.url, "outbox": OUTBOX})
    source = OutboxSource(config, "round-trip")
    source.open({})
    try:
        received: list[Received] = []
        while found := source.receive(1000, 0):
            received += found
        store(connection, received, Decoder("p", max_message_bytes=10_000_000))
    finally:
        source.close()
    assert_arrived(connection)
