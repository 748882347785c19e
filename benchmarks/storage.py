"""How messages are stored: what one table, and one or two levels of partitions, cost publishers.

See docs/decisions/0005-storage.md.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.figures import Effort, Figure, in_turns, ratio, spread
from benchmarks.pgbench import transactions_per_second
from benchmarks.session_cpu import SessionCpu
from benchmarks.stack import Database, Stack

CLIENTS = 32
# table -> what it is
# table: what it is
LAYOUTS = {
    "plain_7": "one table for each outbox",
    "one_7": "range partitions",
    "two": "list of outboxes, range partitions",
}
LOCKS_HELD = 2_400
HORIZON_READS = 200
TRUNCATE_EVERY_SECONDS = 0.2


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with stack.database("storage") as database:
        database.session.execute(Path(__file__).with_name("sql").joinpath("layouts.sql").read_bytes())
        truncated: list[float] = []
        cpu = SessionCpu(stack, database, "bench.ids")
        results = in_turns(
            {
                **{layout: cpu.of(layout, _inserts(database, layout, effort)) for layout in LAYOUTS},
                "truncate": lambda: _while_truncating(database, effort, truncated),
            },
            effort.rounds,
        )
        spent = f"CPU of the server per transaction {cpu.microseconds('plain_7'):.0f} µs"
        yield Figure("32 clients, INSERT into one table for each outbox", spread(results["plain_7"]), note=spent)
        for layout in ("one_7", "two"):
            yield Figure(
                f"32 clients, {LAYOUTS[layout]} / one table", f"{ratio(results[layout], results['plain_7']):.2f}",
                note=f"CPU of the server per transaction {cpu.microseconds(layout):.0f} µs",
            )  # fmt: skip
        took = f"TRUNCATE takes {statistics.median(truncated):.1f} ms, at most {max(truncated):.1f} ms"
        yield Figure(
            f"32 clients, two levels, a settled partition truncated every {TRUNCATE_EVERY_SECONDS} s / without",
            f"{ratio(results['truncate'], results['two']):.2f}", note=took,
        )  # fmt: skip
        yield from _horizon(database)


def _inserts(database: Database, table: str, effort: Effort) -> Callable[[], float]:
    return lambda: transactions_per_second(
        database.url, "layout.sql", clients=CLIENTS, seconds=effort.seconds, table=table
    )


def _while_truncating(database: Database, effort: Effort, took_ms: list[float]) -> float:
    """Partition 7_0 is far below the ids that are inserted: the one that retention would empty."""
    over = threading.Event()

    def truncate() -> None:
        with database.connect() as session:
            while not over.wait(TRUNCATE_EVERY_SECONDS):
                began = time.perf_counter()
                session.execute("truncate bench.two_7_0")
                took_ms.append((time.perf_counter() - began) * 1000)

    thread = threading.Thread(target=truncate)
    thread.start()
    try:
        return _inserts(database, "two", effort)()
    finally:
        over.set()
        thread.join()


def _horizon(database: Database) -> Iterator[Figure]:
    """Reading the marks scans all locks of the server, of all holders."""
    database.run("select tide.outbox_create('o')")
    few = _milliseconds(database)
    with database.connect() as holder:
        holder.execute("select pg_advisory_lock_shared(n) from generate_series(1, %s) n", (LOCKS_HELD,))
        many = _milliseconds(database)
    yield Figure(
        f"reading the horizon with {LOCKS_HELD:,} locks held by others", f"{many:.2f} ms", note=f"{few:.2f} ms without"
    )


def _milliseconds(database: Database) -> float:
    times = []
    for _ in range(HORIZON_READS):
        began = time.perf_counter()
        database.run("select horizon from tide.outbox_horizon(1)")
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)
