"""What the tests of the schema share: sessions as the relay has them, a pipeline, and the drain that has its lease."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from relay.database.connection import Connection, connect
from relay.drains import lease
from relay.drains.fence import FencedSession
from relay.drains.lease import Lease
from relay.drains.outbox import Batch, Reader, Settlement
from relay.models import Drain
from relay.settings import Settings
from relay.sql import query
from tests.services.postgres import Database

LEASE_MS = 60_000


@contextmanager
def relay_session(url: str) -> Iterator[Connection]:
    """A session with the settings that schedulers and workers give theirs."""
    connection = connect(Settings(postgres_url=url), "test")
    try:
        yield connection
    finally:
        connection.close()


def listen(connection: "psycopg.Connection[Any]", seen_at: str = "infinity") -> None:
    """Hears publishers, who ring only if a scheduler was seen of late."""
    connection.execute("listen tide_outbox_notify")
    connection.execute(
        "insert into tide.scheduler"
        " (scheduler_id, relay_group_id, backend_pid, backend_start, host, pid, version, seen_at)"
        " values (gen_random_uuid(), 'default', pg_backend_pid(), now(), 'test', 1, '0', %s)",
        [seen_at],
    )


def publish(connection: "psycopg.Connection[Any]", outbox: str = "orders", payload: object = None) -> int:
    """One message; its id."""
    row = connection.execute("select tide.outbox_publish(%s, %s)", [outbox, Jsonb(payload)]).fetchone()
    assert row
    return int(row[0])


def publish_many(connection: "psycopg.Connection[Any]", number: int, outbox: str = "orders") -> list[int]:
    """Many messages in one call; their ids."""
    row = connection.execute(
        "select tide.outbox_publish_many(%s, (select array_agg(to_jsonb(i)) from generate_series(1, %s) i))",
        [outbox, number],
    ).fetchone()
    assert row
    return list(row[0])


def make_pipeline(database: Database, name: str = "p", outbox: str = "orders", **outbox_options: object) -> None:
    """A pipeline, and its outbox where it is missing."""
    with database.connect() as connection:
        make_outbox(connection, outbox, **outbox_options)
        connection.execute("select tide.relay_set_outbox(%s, %s, %s)", [name, outbox, Jsonb({"sink_type": "memory"})])


def make_outbox(connection: "psycopg.Connection[Any]", name: str = "orders", **options: object) -> int:
    """An outbox, made where it is missing; its number."""
    named = ["%s", *(f"{option} => %s" for option in options)]
    connection.execute(
        f"select tide.outbox_create_if_not_exists({', '.join(named)})",  # type: ignore[arg-type]
        [name, *options.values()],
    )
    row = connection.execute("select outbox_id from tide.outbox where name = %s", [name]).fetchone()
    assert row
    return int(row[0])


def begin(connection: Connection, pipeline: str = "p", number: int = 1, epoch: int = 0) -> FencedSession:
    """The session of a drain, which takes the lease: that must be free."""
    drain = Drain(pipeline, epoch, number, LEASE_MS)
    start = lease.begin(connection, drain)
    assert start, f"drain {number} of epoch {epoch} of {pipeline} cannot begin"
    return FencedSession(connection, Lease(drain, LEASE_MS / 1000, time.monotonic()), start)


@contextmanager
def reader_of(database: Database, pipeline: str = "p", batch_size: int = 100) -> Iterator[Reader]:
    """The reader of a drain that has just begun."""
    with relay_session(database.url) as connection:
        yield Reader(begin(connection, pipeline), batch_size)


class Follower:
    """Reads and settles as a drain does, and remembers what it has seen."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.offset = 0
        self.ids: list[int] = []

    def step(self, bell: Any = None) -> Batch:
        """Settles what was read before, and reads on."""
        settled = Settlement(self.offset, len(self.ids)) if self.offset else None
        batch = self._reader.read(self.offset, settled, bell)
        self.ids += [message.id for message in batch.messages]
        self.offset = max(self.offset, self.ids[-1] if batch.messages else batch.horizon)
        return batch

    def to_end(self) -> list[int]:
        """Reads until nothing is left below the horizon; everything seen so far."""
        before = -1
        while self.offset > before:  # an empty batch up to an earlier horizon also moves it
            before = self.offset
            self.step()
        return self.ids


def horizon(connection: "psycopg.Connection[Any]", outbox: str = "orders") -> tuple[int, int]:
    """The horizon of an outbox, and its open publishers."""
    row = connection.execute(
        "select h.* from tide.outbox o, tide.outbox_horizon(o.outbox_id) h where o.name = %s", [outbox]
    ).fetchone()
    assert row
    return row[0], row[1]


def run(connection: "psycopg.Connection[Any]", statement: str, **parameters: object) -> "psycopg.Cursor[Any]":
    """A named statement of the relay."""
    return connection.execute(query(statement), parameters)


@contextmanager
def refused(sqlstate: str, *texts: str, hint: str | None = None) -> Iterator[None]:
    """The database refuses with this SQLSTATE, with these texts in the message, and with this text in the hint."""
    with pytest.raises(psycopg.Error) as caught:
        yield
    diagnosis = caught.value.diag
    assert diagnosis.sqlstate == sqlstate, caught.value
    for text in texts:
        assert text in (diagnosis.message_primary or "")
    if hint is not None:
        assert hint in (diagnosis.message_hint or "")
