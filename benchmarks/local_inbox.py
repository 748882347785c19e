"""An outbox to an inbox of the same database, and single writes to an inbox: throughput, and CPU per message.

Each against a plain INSERT by one process, into an inbox of the same kind, with its indexes and its trigger.
"""

import os
import statistics
from collections.abc import Callable, Iterator

from psycopg import sql

from benchmarks import proc
from benchmarks.backends.inbox import InboxDestination
from benchmarks.bare import WRITE
from benchmarks.figures import Effort, Figure, at_least, below, in_turns, ratio, spread
from benchmarks.forward import Measured, fill
from benchmarks.pgbench import PAYLOAD
from benchmarks.stack import Database, Stack

BACKLOG = 50_000
BATCHES = (1000, 100)
TARGET = 1.4
OURS = """
select tide.inbox_write('ours', %b::text[], null, %b::text[], null, %b::bigint[], %b::text[], %b::text[], null)
"""
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
        with stack.relay(database) as relay:
            messages = fill(database, effort.count(BACKLOG))
            database.set_pipeline("p", "o", sink_type="file", path=str(stack.folder / "unused.jsonl"))
            destination = InboxDestination(database.session, None)
            for batch in BATCHES:
                measured = Measured(database, destination, batch, messages)
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
    for inbox in ("plain", "ours"):
        database.run("select tide.inbox_create(%s)", inbox)
    plain = sql.SQL(WRITE).format(sql.Identifier("tide", "plain"))
    for rows in (1, 100):
        calls = effort.count(WRITES) // (1 if rows == 1 else 10)
        results = in_turns(
            {
                "plain": lambda: _cpu_ms(database, "plain", plain, rows, calls),  # noqa: B023
                "ours": lambda: _cpu_ms(database, "ours", sql.SQL(OURS), rows, calls),  # noqa: B023
            },
            effort.rounds,
        )
        used, floor = (statistics.median(results[name]) for name in ("ours", "plain"))
        what, note = (
            f"tide.inbox_write of {rows} row{'s' * (rows > 1)}: CPU of the session",
            f"plain INSERT {floor:.3f} ms",
        )
        if rows == 1:
            yield below(what, used, WRITE_TARGET_MS, "ms", note)
        else:
            yield Figure(what, f"{used:.3f} ms", note=note)


def _cpu_ms(database: Database, inbox: str, statement: sql.Composed | sql.SQL, rows: int, calls: int) -> float:
    database.session.execute(sql.SQL("truncate {}").format(sql.Identifier("tide", inbox)))
    with database.connect() as session:
        session.execute("set synchronous_commit = off")

        def write(call: int) -> None:
            numbers = range(call * rows, (call + 1) * rows)
            ids = [f"o:{number}" for number in numbers]
            session.execute(
                statement, [ids, ["o"] * rows, list(numbers), [PAYLOAD] * rows, ["{}"] * rows], prepare=True
            )

        for call in range(20):
            write(call)
        before, pid = proc.cpu_seconds(session.info.backend_pid), session.info.backend_pid
        for call in range(20, 20 + calls):
            write(call)
        return (proc.cpu_seconds(pid) - before) / calls * 1000
