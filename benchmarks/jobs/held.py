"""Jobs while a session holds a snapshot, so that VACUUM can remove nothing: the rate in the end against that in the
beginning, and the row versions that are left. The systems work one after the other while it is held.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise

import psycopg

from benchmarks.figures import Effort, Figure, at_least
from benchmarks.jobs.systems import OURS, Counts, Program, System, systems
from benchmarks.stack import Stack

# Of each system. One snapshot is held meanwhile, with five peers for ten minutes.
SECONDS, QUICK_SECONDS = 100.0, 10.0
# Jobs that wait: enough that workers never wait for the client, few enough that they are young.
BACKLOG, BATCH = 5_000, 1_000
LOOK_SECONDS = 0.02
PARTS = 5
HOLD = "begin isolation level repeatable read; select count(*) from pg_class"
DEAD = "select sum(n_dead_tup)::bigint from pg_stat_all_tables"


@dataclass(frozen=True)
class Held:
    jobs: int
    rates: list[float]
    """In each fifth of the time."""
    dead: int

    @property
    def rate(self) -> float:
        return sum(self.rates) / len(self.rates)

    def __str__(self) -> str:
        return f"{self.rate:,.0f}/s ({self.rates[0]:,.0f} to {self.rates[-1]:,.0f}), {self.dead:,} dead rows"


def run(stack: Stack, effort: Effort, programs: Sequence[Program]) -> Iterator[Figure]:
    seconds = QUICK_SECONDS if effort.scale < 1 else SECONDS
    with systems(stack, programs) as found, ExitStack() as holding:
        for system in found.values():  # each has a database of its own
            holder = holding.enter_context(psycopg.connect(system.url, autocommit=True))
            holder.execute(HOLD)
        results = {name: _measure(system, seconds) for name, system in found.items()}
    ours = results.pop(OURS.name)
    what = f"a snapshot held, {seconds:.0f} s, 1 process"
    yield Figure(
        f"{what}: rate in the last fifth / in the first", f"{ours.rates[-1] / ours.rates[0]:.2f}", note=str(ours)
    )
    per_job = ours.dead / max(1, ours.jobs)
    yield Figure(f"{what}: dead rows for each job", f"{per_job:.3f}", "below 0.1", per_job < 0.1, f"{ours.jobs:,} jobs")
    for name, peer in results.items():
        yield at_least(f"{what}: times {name}", ours.rate / max(peer.rate, 0.1), 1.0, f"ours {ours}; {name} {peer}")
        yield Figure(
            f"{what}: dead rows for each job, {name} / ours",
            f"{peer.dead / max(1, peer.jobs) / max(per_job, 1e-4):,.0f}",
            note=f"{name} {peer.dead / max(1, peer.jobs):.2f} for each of {peer.jobs:,} jobs",
        )


def _measure(system: System, seconds: float) -> Held:
    with system.working() as counts:
        marks = _work(system, counts, seconds)
    rates = [(after[1] - before[1]) / (after[0] - before[0]) for before, after in pairwise(marks)]
    (dead,) = system.session.execute(DEAD).fetchone() or (0,)
    return Held(marks[-1][1], rates, int(dead))


def _work(system: System, counts: Counts, seconds: float) -> list[tuple[float, int]]:
    """When how many jobs were handled, at the beginning and after each fifth of the time."""
    enqueued = 0
    marks: list[tuple[float, int]] = []
    began = 0.0
    while len(marks) <= PARTS:
        handled, now = counts.total(), time.monotonic()
        if not marks and handled:
            began, marks = now, [(now, handled)]
        elif marks and now >= began + seconds * len(marks) / PARTS:
            marks.append((now, handled))
        if enqueued - handled < BACKLOG:
            system.ask(do="many", count=BATCH, size=BATCH)
            enqueued += BATCH
        else:
            time.sleep(LOOK_SECONDS)
    return marks
