"""What 1,000 idle pipelines cost: CPU of scheduler, worker, PostgreSQL and Redis together, and statements."""

import time
from collections.abc import Iterator

from benchmarks import proc
from benchmarks.figures import Effort, Figure, below
from benchmarks.stack import Database, Stack, wait_until

OUTBOXES = 100
GROUPS = 10
PIPELINES = OUTBOXES * GROUPS
SECONDS = 30.0
# Sessions that are idle hand in their statistics ten seconds later.
CALM_SECONDS = 12.0


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    seconds = max(10.0, SECONDS * effort.scale)
    with stack.database("rest") as database:
        floor = _postgres_and_redis(stack, seconds / 2)
        for number in range(OUTBOXES):
            database.run("select tide.outbox_create(%s)", f"o{number}")
        for number in range(PIPELINES):
            path = str(stack.folder / f"rest{number}.jsonl")
            database.set_pipeline(f"p{number}", f"o{number % OUTBOXES}", sink_type="file", path=path)
        with stack.relay(database) as relay:
            wait_until(lambda: _all_asleep(database), "every pipeline drained once", 300, 0.5)
            time.sleep(CALM_SECONDS)
            pids = {"scheduler": [relay.scheduler.pid], "worker": [relay.workers.pid]}
            pids |= {"PostgreSQL": [stack.postgres.pid or 0], "Redis": [stack.redis.pid or 0]}
            transactions, began = _transactions(database), time.monotonic()
            before = {name: proc.family_cpu_seconds(family) for name, family in pids.items()}
            time.sleep(seconds)
            spent = {name: proc.family_cpu_seconds(family) - before[name] for name, family in pids.items()}
            elapsed = time.monotonic() - began
            # One of them is ours, and reading the statistics is another.
            per_second = (_transactions(database) - transactions - 2) / elapsed
    shares = {name: used / elapsed * 100 for name, used in spent.items()}
    note = ", ".join(f"{name} {share:.2f} %" for name, share in shares.items())
    yield below(f"{PIPELINES:,} idle pipelines, CPU of one core", sum(shares.values()), 5, "%",
                f"{note}; PostgreSQL and Redis alone {floor:.2f} %")  # fmt: skip
    yield below(f"{PIPELINES:,} idle pipelines, transactions per second and pipeline", per_second / PIPELINES, 1, "/s",
                f"{per_second:.1f}/s for all")  # fmt: skip


def _all_asleep(database: Database) -> bool:
    return bool(
        database.run("select count(*) = %s from tide.drain where outcome = 'idle' and lease_until is null", PIPELINES)
    )


def _transactions(database: Database) -> int:
    return int(
        database.run("select xact_commit + xact_rollback from pg_stat_database where datname = current_database()")
    )


def _postgres_and_redis(stack: Stack, seconds: float) -> float:
    pids = [stack.postgres.pid or 0, stack.redis.pid or 0]
    before = proc.family_cpu_seconds(pids)
    time.sleep(seconds)
    return (proc.family_cpu_seconds(pids) - before) / seconds * 100
