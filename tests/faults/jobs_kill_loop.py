"""The kill loop with jobs: schedulers and workers are killed at random, PostgreSQL is restarted, Redis is flushed.

    python -m tests.faults.jobs_kill_loop --seconds 180 --rate 200 --postgres 18

Writers enqueue into four queues, in transactions that commit, roll back, and roll back to savepoints: plain jobs of
several priorities, jobs that fail first, scheduled ones; one queue has a limit over the fleet, one a limit for each run
key. In the end every job of a committed transaction must have ended as it should, exactly those, and what the handlers
wrote down must show no limit exceeded. A job that ran more often than it has attempts was run twice by a rescue that
came too early: with processes that are killed, and not frozen, there must be none.

Exit 0 only if nothing is lost, nothing ran that was never committed, and no limit was exceeded.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from relay.local.servers import EmbeddedRedis
from tests.faults.jobs_enqueuers import QUEUES, Enqueuers
from tests.faults.recording_jobs import most_at_once, most_of_a_key, read_runs
from tests.fleets.processes import Fleet, RelayProcess, SchedulerProcess, WorkersProcess, running_fleet
from tests.services.postgres import Database, PostgresServer
from tests.waiting import wait_until

LEASE_SECONDS = 4
LIMIT, KEY_LIMIT = 5, 2
LEAST_FAULTS = 3
DRAIN_SECONDS = 120
_COUNT = """
select tide.job_state(q.name, j.id), count(*) from tide.job j join tide.job_queue q using (outbox_id) group by 1"""


@dataclass
class Outcome:
    enqueued: int
    states: Counter[str]
    never_committed: int
    lost: int
    """Committed, and not in the table, or not ended."""
    most_limited: int
    most_of_a_key: int
    twice: int
    """Runs beyond the number of attempts: at the same attempt in two processes."""
    repeated: int
    """Attempts that came after one that was cut off."""
    faults: Counter[str] = field(default_factory=Counter)
    settled: bool = True

    @property
    def is_right(self) -> bool:
        limits = self.most_limited <= LIMIT and self.most_of_a_key <= KEY_LIMIT
        return self.settled and limits and not (self.lost or self.never_committed or self.twice)


def make_queues(database: Database) -> None:
    with database.connect() as connection:
        for queue in QUEUES:
            connection.execute(
                "select tide.job_queue_create(%s, concurrency_limit => %s, key_limit => %s)",
                [queue, LIMIT if queue == "limited" else None, KEY_LIMIT if queue == "keyed" else None],
            )


def start_workers(fleet: Fleet, runs: Path) -> WorkersProcess:
    return fleet.workers(
        threads=4,
        processes=2,
        RELAY_JOB_MODULES="tests.faults.recording_jobs",
        RELAY_JOB_QUEUES=",".join(QUEUES),
        RELAY_JOB_LEASE=f"{LEASE_SECONDS}s",
        TIDE_TEST_RUNS=str(runs),
    )


def run(
    database: Database, server: PostgresServer | None, redis: EmbeddedRedis, fleet: Fleet, folder: Path,
    *, seconds: float, rate: float, seed: int, pauses: tuple[float, float] = (2.0, 5.0),
) -> Outcome:  # fmt: skip
    """The loop itself. Without `server`, PostgreSQL is not restarted."""
    chance = random.Random(seed)
    runs = folder / "runs.jsonl"
    make_queues(database)
    processes: list[RelayProcess] = [
        *(fleet.scheduler(RELAY_JOB_LEASE=f"{LEASE_SECONDS}s", TEST_RESCUE_SECONDS="1") for _ in range(2)),
        *(start_workers(fleet, runs) for _ in range(2)),
    ]
    fleet.wait_ready()
    faults: Counter[str] = Counter()
    with Enqueuers(database, rate) as enqueuers:
        deadline = time.monotonic() + seconds
        # At least so many, however slow the machine is.
        while time.monotonic() < deadline or faults.total() < LEAST_FAULTS:
            time.sleep(chance.uniform(*pauses))
            faults[_harm(chance, fleet, server, redis)] += 1
    for process in processes:
        process.wait_ready()
    settled = _wait_for_the_end(database)
    return _judge(database, enqueuers, runs, fleet, faults, settled=settled)


def _harm(chance: random.Random, fleet: Fleet, server: PostgresServer | None, redis: EmbeddedRedis) -> str:
    if server is not None and chance.random() < 0.1:
        server.restart()
        return "PostgreSQL restarted"
    if chance.random() < 0.1:
        redis.flush()
        return "Redis flushed"
    victim = chance.choice(fleet.wait_for_one())
    kind = "scheduler" if isinstance(victim, SchedulerProcess) else "workers"
    if isinstance(victim, WorkersProcess) and chance.random() < 0.5:
        victim.kill_child()
    else:
        victim.kill()
    time.sleep(chance.uniform(0, 1))
    victim.start()
    return f"{kind} killed"


def _wait_for_the_end(database: Database) -> bool:
    with database.connect(autocommit=True) as connection:

        def idle() -> bool:
            row = connection.execute(
                "select bool_and(tide.job_queue_is_idle(outbox_id)) from tide.job_queue"
            ).fetchone()
            return bool(row and row[0])

        try:
            wait_until(idle, DRAIN_SECONDS, "every job has ended")
        except AssertionError as error:
            print(error)
            return False
    return True


def _judge(
    database: Database, enqueuers: Enqueuers, runs_file: Path, fleet: Fleet, faults: Counter[str], *, settled: bool
) -> Outcome:
    with database.connect(autocommit=True) as connection:
        rows = connection.execute(
            "select tide.job_uuid(j.outbox_id, j.id)::text, tide.job_state(q.name, j.id),"
            "       (select max(a.attempt) from tide.job_attempt a where a.outbox_id = j.outbox_id and a.id = j.id)"
            "  from tide.job j join tide.job_queue q using (outbox_id)"
        ).fetchall()
    states = {job: state for job, state, _ in rows}
    attempts = {job: attempt or 0 for job, _, attempt in rows}
    runs = read_runs(runs_file, fleet.kills)
    ran = Counter(run.job for run in runs)
    lost = [job for job in enqueuers.committed if states.get(job) != "succeeded" or not ran[job]]
    phantoms = (set(ran) | set(states)) - enqueuers.committed - enqueuers.unsure
    same_attempt = Counter((run.job, run.attempt) for run in runs if run.finished)
    return Outcome(
        enqueued=len(enqueuers.committed),
        states=Counter(states.values()),
        never_committed=len(phantoms),
        lost=len(lost),
        most_limited=most_at_once([run for run in runs if run.queue == "limited"]),
        most_of_a_key=max(most_of_a_key(run for run in runs if run.queue == "keyed").values(), default=0),
        twice=sum(number - 1 for number in same_attempt.values() if number > 1),
        repeated=sum(attempts.values()) - len(attempts),
        faults=faults,
        settled=settled,
    )


def table(outcome: Outcome) -> str:
    rows = {
        "committed": outcome.enqueued,
        "lost": outcome.lost,
        "ran, never committed": outcome.never_committed,
        "most at once (limit 5)": outcome.most_limited,
        "most of a key (limit 2)": outcome.most_of_a_key,
        "same attempt finished twice": outcome.twice,
        "attempts beyond the first": outcome.repeated,
        "faults": outcome.faults.total(),
    }
    lines = [f"{name:<30}{value:>10,}" for name, value in rows.items()]
    lines += [f"  {name:<28}{number:>10,}" for name, number in sorted(outcome.states.items() | outcome.faults.items())]
    return "\n".join(lines)


@contextmanager
def services(folder: Path, version: int) -> Iterator[tuple[PostgresServer, EmbeddedRedis]]:
    server = PostgresServer.start_in(folder / "postgres", version)
    with EmbeddedRedis(folder / "redis") as redis:
        try:
            yield server, redis
        finally:
            server.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--rate", type=float, default=200, help="transactions per second")
    parser.add_argument("--postgres", type=int, default=18, help="its version, of those that are installed")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tide-jobs-kill-loop-"))
    folder.chmod(0o755)
    print(
        f"kill loop with jobs: {options.seconds:g} s, {options.rate:g} transactions/s, "
        f"PostgreSQL {options.postgres}, seed {options.seed}, {folder}",
        flush=True,
    )
    with services(folder, options.postgres) as (server, redis):
        database = server.create_database()
        with running_fleet(database.fleet_url(), redis.url, folder / "fleet", quiet=True) as fleet:
            outcome = run(
                database, server, redis, fleet, folder, seconds=options.seconds, rate=options.rate, seed=options.seed
            )
    print(table(outcome))
    return 0 if outcome.is_right else 1


if __name__ == "__main__":
    sys.exit(main())
