"""A source to an inbox, one pipeline, one worker: from enabling the pipeline until every message is committed.

Against the bare loops of `backends/`, which write the same messages to an inbox of the same kind.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import count

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from benchmarks import bare
from benchmarks.backends.base import Origin
from benchmarks.figures import Effort, Figure, at_least, in_turns, ratio, spread
from benchmarks.pgbench import PAYLOAD
from benchmarks.stack import Database, Stack, wait_until

TARGET = 0.6
SLICE_MS = 2000

Benchmark = Callable[[Stack, Effort], Iterator[Figure]]
Made = Callable[[Stack], AbstractContextManager[Origin]]

_places = count(1)


def from_source(name: str, backlog: int, batches: tuple[int, ...], made: Made) -> Benchmark:
    """A benchmark of one source. The first batch has a target."""

    def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
        with stack.database("reverse") as database, stack.relay(database), made(stack) as origin:
            messages = effort.count(backlog)
            created_at = "2026-01-01T00:00:00.000000Z"
            origin.fill(PAYLOAD, [
                {"relay-id": f"o:{number}", "relay-outbox": "o", "relay-created-at": created_at}
                for number in range(1, messages + 1)
            ])  # fmt: skip
            for batch in batches:
                measured = Measured(database, origin, batch, messages)
                variants = {"bare": measured.floor, "ours": measured.ours}
                if batch == batches[0]:
                    in_turns(variants, 1)  # not counted: in it the worker imports the client, and caches fill
                results = in_turns(variants, effort.rounds)
                what = f"{name} -> inbox, batch {batch} / bare loop"
                value = ratio(results["ours"], results["bare"])
                note = f"ours {spread(results['ours'])}, bare loop {spread(results['bare'])}"
                if batch == batches[0]:
                    yield at_least(what, value, TARGET, note)
                else:
                    yield Figure(what, f"{value:.2f}", note=note)

    return run


class Measured:
    """Each method is one round: it returns messages per second."""

    def __init__(self, database: Database, origin: Origin, batch: int, messages: int) -> None:
        self._database = database
        self._origin = origin
        self._batch = batch
        self._messages = messages

    def floor(self) -> float:
        return self._round(self._floor)

    def ours(self) -> float:
        return self._round(self._ours)

    def _round(self, receive: Callable[[str], float]) -> float:
        inbox = f"place{next(_places)}"
        self._database.run("select tide.inbox_create(%s)", inbox)
        seconds = receive(inbox)
        table = sql.Identifier("tide", inbox)
        [(found,)] = self._database.session.execute(sql.SQL("select count(*) from {}").format(table)).fetchall()
        if found != self._messages:
            raise RuntimeError(f"{found} rows of {self._messages} messages")
        # Not dropped: a pipeline may still name it.
        self._database.session.execute(sql.SQL("truncate {}").format(table))
        return self._messages / seconds

    def _floor(self, inbox: str) -> float:
        with psycopg.connect(self._database.url) as session:

            def write(rows: object) -> None:
                bare.write(session, inbox, rows)  # type: ignore[arg-type]
                session.commit()

            began = time.monotonic()
            self._origin.receive(inbox, self._batch, self._messages, write)
            return time.monotonic() - began

    def _ours(self, inbox: str) -> float:
        database = self._database
        # A drain that waits on its idle source ends with its slice, and the next round begins after it.
        config = {"batch_size": self._batch, "slice_ms": SLICE_MS, **self._origin.config(inbox)}
        database.stop_pipeline("r")
        database.run("select tide.relay_set_inbox('r', %s, %s::jsonb)", inbox, Jsonb(config))
        before = self._delivered()
        began = time.monotonic()
        database.run("select tide.relay_enable('r')")
        wait_until(lambda: self._delivered() - before >= self._messages, f"{self._messages} messages in {inbox}")
        return time.monotonic() - began

    def _delivered(self) -> int:
        return int(self._database.run("select delivered from tide.drain where pipeline = 'r'"))
