"""Jobs a second of handlers that do nothing, by one worker process and by two; and from the commit of a job to its
handler, in a fleet that is idle and in one that has just worked."""

import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import job_handlers
from benchmarks.figures import Effort, Figure, at_least, below, percentile, spread
from benchmarks.stack import Database, Stack, wait_until

JOBS = 100_000
BATCH = 1000
SINGLE_JOBS = 200
WARM_SECONDS = (0.02, 0.12)
IDLE_JOBS = 10
IDLE_SECONDS = 11.0
MODULE = job_handlers.__name__


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    jobs = effort.count(JOBS)
    for processes, target in ((1, 20_000.0), (2, 25_000.0)):
        with stack.database(f"jobs{processes}") as database:
            database.run("select tide.job_queue_create('bench')")
            with stack.relay(database, processes=processes, variables={"RELAY_JOB_MODULES": MODULE}):
                _workers_run(database, processes)
                rates = [_rate(database, jobs) for _ in range(effort.rounds)]
        what = f"coroutine jobs that do nothing, {processes} process{'es' * (processes > 1)}"
        yield at_least(what, statistics.median(rates), target, spread(rates))
    yield from _latency(stack, effort)


def _workers_run(database: Database, processes: int) -> None:
    count = "select count(*) from tide.job_worker"
    wait_until(lambda: int(database.run(count)) >= processes, "workers run jobs")


def _enqueue(database: Database, jobs: int) -> None:
    for _ in range(jobs // BATCH):
        payloads = ['{"n": 1}'] * BATCH
        database.run("select count(tide.job_enqueue_many('bench', array['nothing'], %s::jsonb[]))", payloads)


def _rate(database: Database, jobs: int) -> float:
    """The backlog is there when the clock starts: the queue was paused."""
    database.run("select tide.job_queue_pause('bench')")
    _enqueue(database, jobs)
    ended = int(database.run("select count(*) from tide.job_attempt"))
    database.run("select tide.job_queue_resume('bench')")
    wait_until(lambda: bool(database.run("select exists (select from tide.job_lease)")), "the first claim")
    began = time.perf_counter()
    wait_until(
        lambda: not database.run("select exists (select from tide.job_lease) or tide.job_queue_behind(outbox_id)"
                                 "  from tide.job_queue where name = 'bench'"), "all have ended", every_seconds=0.02,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    assert int(database.run("select count(*) from tide.job_attempt")) - ended == jobs // BATCH * BATCH
    return jobs / seconds


def _latency(stack: Stack, effort: Effort) -> Iterator[Figure]:
    path = stack.folder / "begun"
    path.touch()
    with stack.database("jobs_latency") as database:
        database.run("select tide.job_queue_create('bench-latency')")
        with stack.relay(database, variables={"RELAY_JOB_MODULES": MODULE, "BENCH_JOBS_BEGUN": str(path)}):
            _workers_run(database, 1)
            warm = _waits(database, path, effort.count(SINGLE_JOBS), 0)
            bare = [_bare(database) for _ in range(effort.count(SINGLE_JOBS))]
            # Longer than a worker listens by itself: then it is told by the scheduler.
            idle = _waits(database, path, effort.count(IDLE_JOBS), 1_000_000, pause_seconds=IDLE_SECONDS)
    peer = f"p99 {percentile(warm, 99):.1f} ms; bare LISTEN and NOTIFY: p50 {percentile(bare, 50):.1f} ms"
    yield below("commit to handler, warm, p50", percentile(warm, 50), 5, "ms", peer)
    yield below("commit to handler, idle, p50", percentile(idle, 50), 10, "ms", f"p99 {percentile(idle, 99):.1f} ms")


def _bare(database: Database) -> float:
    """From a NOTIFY to a session that listens, in ms."""
    time.sleep(random.uniform(*WARM_SECONDS))
    with database.connect() as listener:
        listener.execute("listen bench_notify")
        database.run("notify bench_notify")
        notified = time.monotonic_ns()
        next(listener.notifies(timeout=10))
        return (time.monotonic_ns() - notified) / 1e6


def _waits(database: Database, path: Path, jobs: int, first: int, pause_seconds: float = 0.0) -> list[float]:
    committed = {}
    for number in range(first, first + jobs):
        time.sleep(pause_seconds or random.uniform(*WARM_SECONDS))
        database.run("select tide.job_enqueue('bench-latency', 'begin', jsonb_build_object('n', %s::int))", number)
        committed[number] = time.monotonic_ns()
    last = f"{first + jobs - 1} "
    wait_until(lambda: any(line.startswith(last) for line in path.read_text().splitlines()), "the last has begun")
    begun = dict(line.split() for line in path.read_text().splitlines())
    return [(int(begun[str(number)]) - at) / 1e6 for number, at in committed.items()]
