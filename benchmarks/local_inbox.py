"""An outbox to an inbox of the same database, and single writes to an inbox: throughput, and CPU per message.

Each against a plain INSERT by one process, into an inbox of the same kind, with its indexes and its trigger.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import LiteralString

from psycopg import sql

from benchmarks import bare, proc
from benchmarks.backends.inbox import InboxDestination
from benchmarks.bare import WRITE, Connection, InboxRow
from benchmarks.figures import Effort, Figure, at_least, below, in_turns, ratio, spread
from benchmarks.forward import Measured, fill
from benchmarks.pgbench import PAYLOAD
from benchmarks.stack import Database, Stack
from relay.database.arrays import Bigints, Texts

BACKLOG = 50_000
BATCHES = (1000, 100)
TARGET = 1.4
PLAIN: LiteralString = WRITE
OURS: LiteralString = """
select tide.inbox_write('ours', %b::text[], null, %b::text[], null, %b::bigint[], %b::text[], %b::text[], null)
"""
STAGED = """
create temp table staged (event_id text, source text, event_sequence bigint, payload text, headers text)
    on commit delete rows
"""
FROM_STAGED = """
insert into tide.way (event_id, source, event_sequence, payload, headers)
select event_id, source, event_sequence, payload::jsonb, headers::jsonb from staged on conflict (event_id) do nothing
"""
ROWS = 20_000
WRITES = 4000
WRITE_TARGET_MS = 0.15


class Cpu:
    """What the server, and the processes that deliver, use for a message."""

    def __init__(self, stack: Stack, messages: int) -> None:
        self._server = stack.postgres.pid or 0
        self._messages = messages
        self._used: dict[str, list[float]] = {}

    def of(self, name: str, pids: list[int], measure: Callable[[], float]) -> Callable[[], float]:
        """The same measurement; what it used is added to what is known under this name."""

        def measured() -> float:
            before = self._now(pids)
            rate = measure()
            self._used.setdefault(name, []).append((self._now(pids) - before) / self._messages * 1e6)
            return rate

        return measured

    def microseconds(self, name: str) -> float:
        return statistics.median(self._used[name])

    def _now(self, pids: list[int]) -> float:
        return proc.reaped_seconds(self._server) + proc.family_cpu_seconds([self._server, *pids])


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with stack.database("local_inbox") as database:
        yield from _writes(database, effort)
        yield from _ways(database, effort)
        with stack.relay(database) as relay:
            messages = fill(database, effort.count(BACKLOG))
            database.set_pipeline("p", "o", sink_type="file", path=str(stack.folder / "unused.jsonl"))
            destination = InboxDestination(database.session, None)
            for batch in BATCHES:
                measured = Measured(database, destination, batch, messages, relay)
                in_turns({"bare": measured.floor, "ours": measured.ours}, 1)  # not counted: caches fill
                cpu = Cpu(stack, messages)
                results = in_turns(
                    {
                        "bare": cpu.of("bare", [os.getpid()], measured.floor),
                        "ours": cpu.of("ours", relay.pids, measured.ours),
                    },
                    effort.rounds,
                )
                yield at_least(
                    f"outbox -> inbox in the same database, batch {batch} / bare loop",
                    ratio(results["ours"], results["bare"]), TARGET,
                    f"ours {spread(results['ours'])}, bare loop {spread(results['bare'])}; CPU of all per message: "
                    f"ours {cpu.microseconds('ours'):.1f} µs, bare loop {cpu.microseconds('bare'):.1f} µs",
                )  # fmt: skip


def _writes(database: Database, effort: Effort) -> Iterator[Figure]:
    """CPU of the session that writes, as the caller would wait for it on a machine of its own."""
    database.run("select tide.inbox_create('plain'), tide.inbox_create('ours')")
    for rows in (1, 100):
        calls = effort.count(WRITES) // (1 if rows == 1 else 10)
        writes = {"plain": Write(database, "plain", PLAIN, rows), "ours": Write(database, "ours", OURS, rows)}
        results = in_turns({name: write.measure(calls) for name, write in writes.items()}, effort.rounds)
        used, floor = (statistics.median(results[name]) for name in ("ours", "plain"))
        what = f"tide.inbox_write of {rows} row{'s' * (rows > 1)}: CPU of the session"
        note = f"plain INSERT {floor:.3f} ms"
        if rows == 1:
            yield below(what, used, WRITE_TARGET_MS, "ms", note)
        else:
            yield Figure(what, f"{used:.3f} ms", note=note)


class Write:
    """Calls of a statement that writes so many rows to an inbox, as arrays."""

    def __init__(self, database: Database, inbox: str, statement: LiteralString, rows: int) -> None:
        self._database = database
        self._table = sql.Identifier("tide", inbox)
        self._statement = sql.SQL(statement).format(self._table)
        self._rows = rows

    def measure(self, calls: int) -> Callable[[], float]:
        """Milliseconds of a call."""

        def measured() -> float:
            self._database.session.execute(sql.SQL("truncate {}").format(self._table))
            with self._database.connect() as session:
                session.execute("set synchronous_commit = off")
                self._call(session, range(20))
                before = proc.cpu_seconds(session.info.backend_pid)
                self._call(session, range(20, 20 + calls))
                return (proc.cpu_seconds(session.info.backend_pid) - before) / calls * 1000

        return measured

    def _call(self, session: Connection, calls: range) -> None:
        rows = self._rows
        for call in calls:
            numbers = list(range(call * rows, (call + 1) * rows))
            ids = [f"o:{number}" for number in numbers]
            session.execute(
                self._statement, [ids, ["o"] * rows, numbers, [PAYLOAD] * rows, ["{}"] * rows], prepare=True
            )


def _ways(database: Database, effort: Effort) -> Iterator[Figure]:
    """How rows come to the server: in arrays as psycopg makes them, in ours, or by COPY into a table beside."""
    database.run("select tide.inbox_create('way')")
    for batch in BATCHES:
        rows: list[InboxRow] = [(f"o:{number}", "o", number, PAYLOAD, "{}") for number in range(effort.count(ROWS))]
        batches = [rows[begin : begin + batch] for begin in range(0, len(rows), batch)]
        results = in_turns(
            {name: _way(database, way, batches) for name, way in (("lists", _lists), ("ours", _ours), ("copy", _copy))},
            effort.rounds,
        )
        lists, ours, copy = (statistics.median(results[name]) / len(rows) * 1e6 for name in ("lists", "ours", "copy"))
        yield Figure(
            f"rows to an inbox in batches of {batch}: CPU of both sides for arrays / for COPY", f"{ours / copy:.2f}",
            note=f"per row: our arrays {ours:.1f} µs, psycopg's {lists:.1f} µs, COPY and INSERT {copy:.1f} µs",
        )  # fmt: skip


def _way(
    database: Database, way: Callable[[Connection, list[InboxRow]], None], batches: list[list[InboxRow]]
) -> Callable[[], float]:
    def measured() -> float:
        database.run("truncate tide.way")
        with database.connect() as session:
            session.execute("set synchronous_commit = off")
            session.execute(STAGED)
            pid = session.info.backend_pid
            before = proc.cpu_seconds(pid) + time.process_time()
            for batch in batches:
                way(session, batch)
            return proc.cpu_seconds(pid) + time.process_time() - before

    return measured


def _lists(session: Connection, batch: list[InboxRow]) -> None:
    bare.write(session, "way", batch)


def _ours(session: Connection, batch: list[InboxRow]) -> None:
    ids, sources, sequences, payloads, headers = zip(*batch, strict=True)
    arrays = [Texts(ids), Texts(sources), Bigints(sequences), Texts(payloads), Texts(headers)]
    session.execute(sql.SQL(WRITE).format(sql.Identifier("tide", "way")), arrays)


def _copy(session: Connection, batch: list[InboxRow]) -> None:
    with session.transaction():
        with session.cursor().copy("copy staged from stdin (format binary)") as copy:
            copy.set_types(["text", "text", "int8", "text", "text"])
            for row in batch:
                copy.write_row(row)
        session.execute(FROM_STAGED)
