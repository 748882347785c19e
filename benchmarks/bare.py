"""The floors: the least that a loop without any of our code does, in one process and one thread.

What a floor does with its backend is in `backends/`; here is its end in PostgreSQL.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

Connection = psycopg.Connection[Any]

Row = tuple[int, str, datetime]
"""Of an outbox: id, payload, when it was published."""

InboxRow = tuple[str, str, int | None, str, str]
"""Of an inbox: event id, source, sequence, payload, headers."""

READ = "select id, payload::text, created_at from tide.message where outbox_id = {} and id > %s order by id limit {}"

# Arrays in binary: as text, psycopg would take more time for them than all the rest takes.
WRITE = """
insert into {} (event_id, source, event_sequence, payload, headers)
select r.event_id, r.source, r.event_sequence, r.payload::jsonb, r.headers::jsonb
  from unnest(%b::text[], %b::text[], %b::bigint[], %b::text[], %b::text[])
       as r (event_id, source, event_sequence, payload, headers)
on conflict (event_id) do nothing
"""


def prepare(session: Connection) -> None:
    """The table that the floors keep their offset in."""
    session.execute("create schema bench")
    session.execute("create table bench.progress (offset_id bigint not null) with (fillfactor = 20)")
    session.execute("insert into bench.progress values (0)")


class Batches:
    """The batches of an outbox from its beginning; each is settled when the next one is asked for."""

    session: Connection
    """In the transaction that settles the batch."""
    settles = True
    """Whether the batch in hand moves the offset. For callers that gather several."""

    def __init__(self, url: str, outbox_id: int, batch: int) -> None:
        self._url = url
        self._select = sql.SQL(READ).format(sql.Literal(outbox_id), sql.Literal(batch))

    def __iter__(self) -> Iterator[list[Row]]:
        with psycopg.connect(self._url) as self.session:
            session = self.session
            session.execute("set enable_seqscan = off")
            session.execute("update bench.progress set offset_id = 0")
            session.commit()
            offset_id = 0
            while rows := session.execute(self._select, (offset_id,), prepare=True).fetchall():
                yield rows
                offset_id = rows[-1][0]
                if self.settles:
                    session.execute("update bench.progress set offset_id = %s", (offset_id,))
                    session.commit()


def headers(row: Row) -> dict[str, str]:
    """Those that the relay sends with a message that has none of its own."""
    return {"relay-id": f"o:{row[0]}", "relay-outbox": "o", "relay-created-at": row[2].isoformat()}


def write(session: Connection, inbox: str, rows: Iterable[InboxRow]) -> None:
    """Inserts a batch into an inbox, without what is there already."""
    session.execute(sql.SQL(WRITE).format(sql.Identifier("tide", inbox)), list(map(list, zip(*rows, strict=True))))


def to_file(batches: Iterable[Sequence[Row]], path: Path) -> int:
    """Select, write and fsync, update the offset, commit; until nothing is left. Returns the number of messages."""
    done = 0
    with path.open("ab", buffering=0) as file:
        for rows in batches:
            file.write(("\n".join([row[1] for row in rows]) + "\n").encode())
            os.fsync(file.fileno())
            done += len(rows)
    return done
