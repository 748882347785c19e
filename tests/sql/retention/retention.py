"""What the tests of retention share: partitions that are full, settled, and older than they are."""

from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from tests.sql.support import publish_many

SIZE = 1000
Connection = psycopg.Connection[Any]


def fill(connection: Connection, partitions: int, outbox: str = "orders") -> None:
    """Publishes until the next partitions are full, which are made ahead as a scheduler would."""
    for _ in range(partitions):
        last = _one(connection, "select (tide.outbox_status(%s)).last_id", outbox)
        missing = SIZE - (last + 1) % SIZE
        for number in (10, missing - 10):
            publish_many(connection, number, outbox)
            connection.execute("select tide.outbox_extend(%s)", [outbox])


def make_line(connection: Connection, name: str = "p") -> None:
    """A pipeline from the first outbox to nowhere; one more of it, if there is one."""
    connection.execute("select tide.relay_set_outbox(%s, 'orders', %s)", [name, Jsonb({"sink_type": "memory"})])


def settle(connection: Connection, group: str = "p", offset_id: int | None = None) -> None:
    """Up to an id; up to the last one if none is given."""
    connection.execute(
        "update tide.consumer_group set offset_id = coalesce(%s, tide.outbox_last_id(outbox_id)) where name = %s",
        [offset_id, group],
    )


def age(connection: Connection, part: str, hours: float) -> None:
    """The messages of a partition of the first outbox were published so long ago."""
    connection.execute(
        f"update tide.message_1_{part} set created_at = clock_timestamp() - %s * interval '1 hour'",  # type: ignore[arg-type]
        [hours],
    )


def stand_for(connection: Connection, pipeline: str, hours: float) -> None:
    """A pipeline was disabled, or found invalid, so long ago, and retention has seen it."""
    connection.execute(
        "update tide.pipeline set updated_at = clock_timestamp() - %s * interval '1 hour' where name = %s",
        [hours, pipeline],
    )
    connection.execute("update tide.hold set since = clock_timestamp() - %s * interval '1 hour'", [hours])


def retain(connection: Connection, outbox: str = "orders", max_partitions: int = 16) -> dict[str, Any]:
    """One call."""
    cursor = connection.execute("select * from tide.outbox_retain(%s, %s)", [outbox, max_partitions])
    assert cursor.description
    [row] = cursor.fetchall()
    return dict(zip([column.name for column in cursor.description], row, strict=True))


def retain_all(connection: Connection, outbox: str = "orders") -> dict[str, Any]:
    """Empties what may go, and drops it."""
    first = retain(connection, outbox)
    retain(connection, outbox)
    return first


def parts(connection: Connection) -> dict[str, int]:
    """The partitions of the first outbox by name, in their order, each with its rows."""
    names = [name for (name,) in connection.execute("select part::text from tide.outbox_partitions(1)")]
    counted = {name: _one(connection, f"select count(*) from {name}") for name in names}
    return {name.removeprefix("tide.message_1_"): rows for name, rows in counted.items()}


def losses(connection: Connection) -> list[tuple[Any, ...]]:
    """What was let go unsettled."""
    return connection.execute(
        "select outbox, consumer_group, pipeline, reason, messages, first_id, last_id"
        "  from tide.retention_loss order by loss_id"
    ).fetchall()


def _one(connection: Connection, statement: str, *parameters: object) -> int:
    row = connection.execute(statement, parameters).fetchone()  # type: ignore[arg-type]
    assert row
    return int(row[0])
