"""What the tests of inboxes share."""

from typing import Any

import psycopg

Session = psycopg.Connection[Any]


def call(db: Session, expression: str, *parameters: object) -> Any:
    """The first column of the only row."""
    row = db.execute(f"select {expression}", parameters or None).fetchone()  # type: ignore[arg-type]
    assert row
    return row[0]


def fill(db: Session, *event_ids: str, inbox: str = "commands", **columns: object) -> None:
    """Messages, one insert each; columns are the same in all of them."""
    names = "".join(f", {name}" for name in columns)
    places = ", %s" * len(columns)
    for event_id in event_ids:
        db.execute(
            f"insert into tide.{inbox} (event_id{names}) values (%s{places})",  # type: ignore[arg-type]
            [event_id, *columns.values()],
        )


def fill_many(db: Session, number: int, aggregates: int = 0, inbox: str = "commands") -> None:
    """Messages m1 ... with sequences; message n is of aggregate a(n mod aggregates)."""
    db.execute(
        f"insert into tide.{inbox} (event_id, aggregate_id, event_sequence)"  # type: ignore[arg-type]
        " select 'm' || n, 'a' || n %% nullif(%s, 0), n from generate_series(1, %s) n",
        [aggregates, number],
    )


def claim(db: Session, size: int = 100, worker: str = "w", inbox: str = "commands", seconds: int = 30) -> list[str]:
    """The event ids that a claim gives."""
    rows = db.execute("select event_id from tide.inbox_claim(%s, %s, %s, %s)", [inbox, worker, size, seconds])
    return [row[0] for row in rows]


def processed(db: Session, *event_ids: str, worker: str | None = None, inbox: str = "commands") -> int:
    return int(call(db, "tide.inbox_mark_processed(%s, %s, %s)", inbox, list(event_ids), worker))


def failed(db: Session, event_id: str, worker: str | None = None, retry_seconds: float | None = 0) -> str:
    text = "tide.inbox_mark_failed('commands', %s, 'it broke', %s, %s)"
    return str(call(db, text, event_id, worker, retry_seconds))


def end_lease(db: Session, *event_ids: str) -> None:
    """As if the time of the lease were over."""
    db.execute(
        "update tide.commands set available_at = now() - interval '1 s' where event_id = any (%s)", [[*event_ids]]
    )


def names(db: Session, view: str, order: str = "1") -> list[str]:
    return [row[0] for row in db.execute(f"select event_id from tide.{view} order by {order}")]  # type: ignore[arg-type]
