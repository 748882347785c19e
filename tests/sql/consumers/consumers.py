"""What the tests of consumer groups share: short forms of the calls, and looks at what a group has handed out."""

from typing import Any

import psycopg

Session = psycopg.Connection[Any]


def one(session: Session, statement: str, *parameters: object) -> Any:
    """The first column of the first row, or None."""
    row = session.execute(statement, parameters).fetchone()  # type: ignore[arg-type]
    return row and row[0]


def consumer_group(session: Session, name: str = "g", outbox: str = "orders", **options: object) -> None:
    """A group that consumers poll."""
    named = "".join(f", {option} => %s" for option in options)
    session.execute(f"select tide.create_consumer_group(%s, %s{named})", [name, outbox, *options.values()])  # type: ignore[arg-type]


def poll(session: Session, consumer: str, batch_size: int = 100, group: str = "g", seconds: int = 30) -> list[int]:
    """The ids that a poll returns."""
    rows = session.execute(
        "select id from tide.poll_outbox(%s, %s, batch_size => %s, visibility_seconds => %s)",
        [group, consumer, batch_size, seconds],
    )
    return [row[0] for row in rows]


def commit(session: Session, consumer: str, last_id: int, group: str = "g") -> int:
    """The offset of the group after a commit."""
    return int(one(session, "select tide.commit_offset(%s, %s, %s)", group, consumer, last_id))


def offset(session: Session, group: str = "g") -> int:
    """The offset of the group."""
    return int(one(session, "select offset_id from tide.consumer_group where name = %s", group))


def ranges(session: Session) -> list[tuple[int, int, str]]:
    """What groups have handed out: (after_id, last_id, who holds it, or "settled"). Checked: no gap, no overlap."""
    rows = session.execute("""
        select l.after_id, l.last_id, case when l.settled then 'settled' else l.consumer end,
               l.after_id = lag(l.last_id, 1, g.offset_id) over (partition by l.group_id order by l.after_id)
          from tide.consumer_lease l join tide.consumer_group g on g.group_id = l.group_id
         order by l.group_id, l.after_id""").fetchall()
    assert all(row[3] for row in rows), rows
    return [row[:3] for row in rows]


def let_run_out(session: Session, consumer: str | None = None) -> None:
    """Ends every lease, or those of one consumer, as time would."""
    with session.transaction():
        # As all who change ranges: without the lock two who change several would wait for each other.
        session.execute("select from tide.consumer_group order by group_id for no key update")
        session.execute(
            "update tide.consumer_lease set lease_until = clock_timestamp()"
            " where not settled and (%s::text is null or consumer = %s)",
            [consumer, consumer],
        )


def lag(session: Session, group: str = "g") -> dict[str, Any]:
    """The row of tide.consumer_lag."""
    cursor = session.execute("select * from tide.consumer_lag(%s)", [group])
    row = cursor.fetchone()
    assert row and cursor.description
    return dict(zip([column.name for column in cursor.description], row, strict=True))


def held_by(session: Session, consumer: str, group: str = "g") -> tuple[int, int | None, int | None]:
    """How many messages a consumer holds, and their first and last id."""
    row = session.execute(
        "select held, first_id, last_id from tide.consumer_status(%s) where consumer = %s", [group, consumer]
    ).fetchone()
    assert row, f"{consumer} is unknown"
    return row[0], row[1], row[2]
