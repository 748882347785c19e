"""Writers that do to outboxes, all at once, everything that an application may do."""

import itertools
import random
import threading
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from tests.services.postgres import Database
from tests.sql.outbox.crowd import at_once

ISOLATION = ["read committed"] * 6 + ["repeatable read", "serializable"]
PAUSES_MS = (0, 0, 0, 2, 10, 30)


class Writers:
    """Threads that publish until they are stopped, and what became of everything they published."""

    def __init__(self, database: Database, outboxes: tuple[str, ...] = ("orders",), *, two_phase: bool = True) -> None:
        self.committed: dict[str, set[int]] = {outbox: set() for outbox in outboxes}
        self.rolled_back: dict[str, set[int]] = {outbox: set() for outbox in outboxes}
        self.done: dict[str, int] = {}
        self._database = database
        self._two_phase = two_phase
        self._errors: list[Exception] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def running(self, writers: int = 12, pauses_ms: tuple[int, ...] = PAUSES_MS) -> AbstractContextManager[None]:
        """Writers work while the block runs; their errors are raised at its end."""
        return at_once(self._stop, [partial(self._write, random.Random(seed), pauses_ms) for seed in range(writers)])

    def count(self) -> int:
        """How many messages were committed. Raises what a writer ended with, so that no one waits in vain."""
        with self._lock:
            if self._errors:
                raise self._errors[0]
            return sum(len(ids) for ids in self.committed.values())

    def _write(self, chance: random.Random, pauses_ms: tuple[int, ...]) -> None:
        with self._database.connect() as connection:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                try:
                    _Transaction(connection, chance, pauses_ms, list(self.committed)).run(self, number)
                except Exception as error:
                    with self._lock:
                        self._errors.append(error)
                    raise

    def ended(self, how: str, published: dict[str, set[int]], undone: dict[str, set[int]]) -> None:
        with self._lock:
            self.done[how] = self.done.get(how, 0) + 1
            kept = self.committed if "rolled back" not in how else self.rolled_back
            for outbox in self.committed:
                kept[outbox] |= published[outbox]
                self.rolled_back[outbox] |= undone[outbox]

    @property
    def two_phase(self) -> bool:
        return self._two_phase


class _Transaction:
    """One transaction of one to five steps, with pauses, in any of the ways to end it."""

    def __init__(self, connection: "psycopg.Connection[Any]", chance: random.Random, pauses_ms: Any, outboxes: Any):
        self._connection = connection
        self._chance = chance
        self._pauses_ms = pauses_ms
        self._outboxes = outboxes
        self._published: dict[str, set[int]] = {outbox: set() for outbox in outboxes}
        self._undone: dict[str, set[int]] = {outbox: set() for outbox in outboxes}

    def run(self, writers: Writers, number: int) -> None:
        two_phase = writers.two_phase and self._chance.random() < 0.15
        isolation = self._chance.choice(ISOLATION)
        self._connection.execute(f"begin isolation level {isolation}")  # type: ignore[arg-type]
        try:
            if two_phase:
                self._connection.execute("set local tide.two_phase = on")
            for _ in range(self._chance.randint(1, 5)):
                steps = [
                    self._one,
                    self._insert,
                    self._many,
                    self._insert_many,
                    self._kept_savepoint,
                    self._undone_savepoint,
                ]
                self._chance.choice(steps)()
                self._pause()
            how = self._end(f"{threading.get_ident()}-{number}") if two_phase else self._end_at_once()
        except psycopg.errors.SerializationFailure:
            self._connection.execute("rollback")
            how = "rolled back: serialization"
        writers.ended(how, self._published, self._undone)

    def _end_at_once(self) -> str:
        commits = self._chance.random() < 0.8
        self._connection.execute("commit" if commits else "rollback")
        return "committed" if commits else "rolled back"

    def _end(self, gid: str) -> str:
        commits = self._chance.random() < 0.6
        self._connection.execute(f"prepare transaction '{gid}'")  # type: ignore[arg-type]
        self._pause()
        self._connection.execute(f"{'commit' if commits else 'rollback'} prepared '{gid}'")  # type: ignore[arg-type]
        return "committed: prepared" if commits else "rolled back: prepared"

    def _one(self) -> None:
        outbox = self._chance.choice(self._outboxes)
        row = self._connection.execute("select tide.outbox_publish(%s, %s)", [outbox, Jsonb({"n": 1})]).fetchone()
        assert row
        self._published[outbox].add(row[0])

    def _many(self) -> None:
        outbox = self._chance.choice(self._outboxes)
        payloads = [Jsonb({"n": number}) for number in range(self._chance.randint(1, 30))]
        row = self._connection.execute("select tide.outbox_publish_many(%s, %s)", [outbox, payloads]).fetchone()
        assert row and len(row[0]) == len(payloads)
        self._published[outbox] |= set(row[0])

    def _insert(self) -> None:
        self._insert_rows(1)

    def _insert_many(self) -> None:
        self._insert_rows(self._chance.randint(2, 30))

    def _insert_rows(self, number: int) -> None:
        outbox = self._chance.choice(self._outboxes)
        rows = self._connection.execute(
            f"insert into tide_outbox.{outbox} (payload) select to_jsonb(n) from generate_series(1, %s) n returning id",  # type: ignore[arg-type]
            [number],
        ).fetchall()
        ids = [id_ for (id_,) in rows]
        assert len(ids) == number and ids == sorted(ids)
        self._published[outbox] |= set(ids)

    def _kept_savepoint(self) -> None:
        self._connection.execute("savepoint kept")
        self._chance.choice([self._one, self._insert])()
        self._connection.execute("release savepoint kept")

    def _undone_savepoint(self) -> None:
        before = {outbox: set(ids) for outbox, ids in self._published.items()}
        self._connection.execute("savepoint undone")
        self._chance.choice([self._one, self._many, self._insert, self._insert_many])()
        self._pause()
        self._connection.execute("rollback to savepoint undone")
        for outbox, ids in self._published.items():
            self._undone[outbox] |= ids - before[outbox]
        self._published = before

    def _pause(self) -> None:
        """As an application works between two statements, for a time of its own."""
        if pause_ms := self._chance.choice(self._pauses_ms):
            self._connection.execute("select pg_sleep(%s)", [self._chance.uniform(0, pause_ms / 1000)])
