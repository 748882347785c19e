"""The claim of ours in SQL, while many jobs wait."""

import statistics
import time
from collections.abc import Iterator

from benchmarks.figures import Effort, Figure
from benchmarks.jobs.handlers import QUEUE
from benchmarks.stack import Database, Stack

BACKLOGS = (100_000, 1_000_000)
WANTED = (1, 100, 500)
TIMES = 60
FILLED_AT_ONCE = 10_000

FILL = (
    "select tide.job_enqueue_many(%s, '{noop}', array(select jsonb_build_object('n', n) from generate_series(1, %s) n))"
)
CLAIM = "select lease_id, id, attempt from tide.job_claim(%s, %s, %s)"
FINISH = """
select tide.job_finish(%s, %s, %s, %s, array_fill('s'::"char", array[%s]), array_fill(1, array[%s]))
"""


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with stack.database("jobs_claims") as database:
        database.run("select tide.job_queue_create(%s)", QUEUE)
        queue = database.run("select outbox_id from tide.job_queue where name = %s", QUEUE)
        worker = database.run("select tide.job_worker_start('bench', 1, array[%s], 1000)", QUEUE)
        filled = 0
        for backlog in BACKLOGS:
            for _ in range(0, backlog - filled, FILLED_AT_ONCE):
                database.run("select tide.outbox_extend(name) from tide.outbox where outbox_id = %s", queue)
                database.run(FILL, QUEUE, FILLED_AT_ONCE)
            filled = backlog
            database.session.execute("vacuum analyze")
            database.run("select tide.job_worker_beat(%s)", worker)
            for want in WANTED:
                times = [_claim(database, queue, worker, want) for _ in range(effort.count(TIMES))]
                yield Figure(
                    f"claim of {want} with {backlog:,} waiting, p50", f"{statistics.median(times):.1f} ms",
                    note=f"largest {max(times):.1f} ms",
                )  # fmt: skip


def _claim(database: Database, queue: int, worker: int, want: int) -> float:
    """Milliseconds of the claim alone; its jobs are then finished."""
    began = time.perf_counter()
    rows = database.session.execute(CLAIM, (queue, worker, want), prepare=True).fetchall()
    milliseconds = (time.perf_counter() - began) * 1000
    if len(rows) != want:
        raise RuntimeError(f"a claim of {want} got {len(rows)}")
    leases, ids, attempts = (list(column) for column in zip(*rows, strict=True))
    database.session.execute(FINISH, (worker, leases, ids, attempts, want, want))
    return milliseconds
