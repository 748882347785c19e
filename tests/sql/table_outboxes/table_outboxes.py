"""What the tests of table outboxes share."""

from typing import Any

import psycopg


def enable(connection: "psycopg.Connection[Any]", table: str = "orders", **options: object) -> str:
    """Makes a table an outbox; the outbox's name."""
    named = ["%s::regclass", *(f"{option} => %s" for option in options)]
    row = connection.execute(
        f"select tide.table_outbox_enable({', '.join(named)})",  # type: ignore[arg-type]
        [table, *options.values()],
    ).fetchone()
    assert row
    return str(row[0])


def payloads(connection: "psycopg.Connection[Any]", outbox: str = "public.orders") -> list[dict[str, Any]]:
    """What an outbox holds, in order."""
    rows = connection.execute(
        "select m.payload from tide.message m join tide.outbox o using (outbox_id) where o.name = %s order by m.id",
        [outbox],
    )
    return [payload for (payload,) in rows]


def published(connection: "psycopg.Connection[Any]", outbox: str = "public.orders") -> list[tuple[Any, ...]]:
    """For each message in order: op, the rows inserted, the rows deleted."""
    return [(p["op"], p["inserted"], p["deleted"]) for p in payloads(connection, outbox)]


def status(connection: "psycopg.Connection[Any]", table: str = "orders") -> dict[str, Any]:
    """How a table outbox is."""
    cursor = connection.execute("select * from tide.table_outbox_status(%s::regclass)", [table])
    row = cursor.fetchone()
    assert row and cursor.description
    return dict(zip([column.name for column in cursor.description], row, strict=True))
