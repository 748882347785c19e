"""What publishers notice of retention at work, also beside sessions that hold a snapshot, or that read the outbox.

Retention has a turn ten times a second here, three hundred times as often as by default, and small partitions, so that
it always has something to empty and to drop. In every phase a consumer group follows the publishers.
"""

import contextlib
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import structlog

from benchmarks import pgbench
from benchmarks.figures import Effort, Figure, percentile, ratio, spread
from benchmarks.stack import Connection, Database, Stack
from relay.errors import RelayError
from workers import maintenance

SECONDS = 60.0
ROUNDS = 5
WARM_UP_SECONDS = 2.0
CLIENTS = 8
PARTITION_SIZE = 5_000
FOLLOW_SECONDS = 0.02
TURN_SECONDS = 0.1
# Soon enough that partitions are made before publishers need them.
EXTEND_SECONDS = 0.2

# What each phase has beside its publishers; the first is what the others are compared with.
PHASES = {
    "none": "no retention",
    "retention": "retention",
    "snapshot": "retention beside a held snapshot",
    "reader": "retention beside an open transaction that has read the outbox",
}
# What a session of the phase does before it sits idle in its transaction.
HELD = {
    "snapshot": "begin isolation level repeatable read; select count(*) from tide.outbox",
    "reader": "begin; select count(*) from tide.message",
}
FOLLOW = "update tide.consumer_group set offset_id = %s"
EXTEND = "select tide.outbox_extend(name) from tide.outbox where tide.outbox_needs_partition(outbox_id)"
DEAD = """
select coalesce(sum(n_dead_tup + n_tup_upd + n_tup_del), 0) from pg_stat_all_tables
 where relid in (select relid from pg_partition_tree('tide.message'))
"""


class Phase:
    """A database with one outbox and its publishers, and what was measured of them, round by round."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        database.run("select tide.outbox_create('o', 0, partition_size => %s)", PARTITION_SIZE)
        database.run("insert into tide.consumer_group (outbox_id, name) values (1, 'follower')")
        self.rates: list[float] = []
        self.p50: list[float] = []
        """Milliseconds, as are the next two."""
        self.p99: list[float] = []
        self.longest = 0.0
        self.counts = maintenance.Counts()

    def measure(self, seconds: float) -> tuple[float, list[float]]:
        """Transactions per second, and the milliseconds of each."""
        with ExitStack() as stack:
            log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tide-bench-")))
            if held := HELD.get(self._name):
                stack.enter_context(self._database.connect()).execute(held.encode())
            stack.enter_context(_repeated(self._database, FOLLOW_SECONDS, _follow))
            stack.enter_context(_repeated(self._database, EXTEND_SECONDS, _extend))
            if self._name != "none":
                stack.enter_context(_repeated(self._database, TURN_SECONDS, self._maintain))
            url = self._database.url
            with pgbench.running(
                url, "publish.sql", clients=CLIENTS, seconds=seconds, rate=None, log=log, outbox="o"
            ) as process:
                rate = pgbench.finish(process, seconds + pgbench.LIMIT_SECONDS)
            return rate, pgbench.latencies(log)

    def count(self, rate: float, latencies: list[float]) -> None:
        """Adds a round."""
        self.rates.append(rate)
        self.p50.append(percentile(latencies, 50))
        self.p99.append(percentile(latencies, 99))
        self.longest = max(self.longest, *latencies)

    def latency(self) -> str:
        p50, p99 = statistics.median(self.p50), statistics.median(self.p99)
        return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {self.longest:.0f} ms"

    def removed(self) -> str:
        counts = self.counts
        text = (
            f"{counts.truncated} partitions emptied, {counts.dropped} dropped, {counts.busy} times something in the way"
        )
        return text + (f", {counts.failed} steps refused" if counts.failed else "")

    def dead_rows(self) -> int:
        """Versions of rows in what is left of the outbox that only VACUUM would remove."""
        return int(self._database.run(DEAD))

    def _maintain(self, session: Connection) -> None:
        counts = maintenance.run_once(session)
        for name in maintenance.Counts.__slots__:
            setattr(self.counts, name, getattr(self.counts, name) + getattr(counts, name))


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    seconds = max(10.0, SECONDS * effort.scale**2)
    with ExitStack() as databases, structlog.testing.capture_logs():
        phases = {name: Phase(databases.enter_context(stack.database(f"retention_{name}")), name) for name in PHASES}
        phases["none"].measure(WARM_UP_SECONDS)  # not counted: the server makes its first files of WAL
        for _ in range(ROUNDS):
            for phase in phases.values():
                phase.count(*phase.measure(seconds / ROUNDS))
        none = phases.pop("none")
        yield Figure(f"{CLIENTS} clients, {PHASES['none']}", spread(none.rates), note=none.latency())
        for name, phase in phases.items():
            yield from _compared(PHASES[name], phase, none)


def _compared(what: str, phase: Phase, none: Phase) -> Iterator[Figure]:
    yield Figure(f"{what} / without: transactions", f"{ratio(phase.rates, none.rates):.2f}", note=spread(phase.rates))
    yield Figure(f"{what} / without: p99", f"{ratio(phase.p99, none.p99):.2f}", note=phase.latency())
    dead = phase.dead_rows()
    yield Figure(f"{what}: dead rows of the outbox", f"{dead}", "none", dead == 0, phase.removed())
    if phase.counts.lost:
        raise RuntimeError(f"{what}: {phase.counts.lost} messages were lost")


def _follow(session: Connection) -> None:
    """What a drain does, without its sink."""
    for (horizon,) in session.execute("select horizon from tide.outbox_horizon(1)").fetchall():
        session.execute(FOLLOW, (horizon,))


def _extend(session: Connection) -> None:
    """What the scheduler does every few seconds."""
    with contextlib.suppress(psycopg.errors.LockNotAvailable):  # it is asked again
        session.execute(EXTEND)


@contextlib.contextmanager
def _repeated(database: Database, pause_seconds: float, work: Callable[[Connection], None]) -> Iterator[None]:
    """In a thread, on a session of its own. Raises in the end what the work has raised."""
    over = threading.Event()
    errors: list[psycopg.Error | RelayError] = []

    def repeat() -> None:
        try:
            with database.connect() as session:
                while not over.wait(pause_seconds):
                    work(session)
        except (psycopg.Error, RelayError) as error:
            errors.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if errors:
        raise errors[0]
