"""The kill loop with stream tables: schedulers and workers are killed while a crowd writes, and no row may be wrong.

    python -m tests.faults.streams_kill_loop --seconds 180 --postgres 18

Writers roll back, use savepoints, REPEATABLE READ and two phases, upsert, change keys and truncate; see
`tests.sql.streams.crowd`. A fleet keeps stream tables over them equal, and over each other; meanwhile some are created,
altered, frozen and dropped, and one process or one group is killed, or frozen for longer than its leases.

A stream table that says, under a snapshot, that it has nothing to do must equal its query under that snapshot. That is
judged all the time, and each time after a fault, when the writers pause until all of them have nothing to do.

Exit 0 only if no row was wrong, no refresh failed, and all of them came to rest.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
from psycopg import IsolationLevel, sql

from tests.faults.jobs_kill_loop import services
from tests.fleets.processes import Fleet, WorkersProcess, running_fleet
from tests.services.postgres import Database
from tests.sql.streams.crowd import STREAMS, TABLES, WRITERS, write

LEAST_FAULTS = 3
FREEZE_SECONDS = 4.0
REST_SECONDS = 120.0
LOOK_SECONDS = 0.1
MOST_OTHERS = 4
SCHEDULES = ("200ms", "500ms", "1s")
MODES = ("AUTO", "AUTO", "DIFFERENTIAL", "FULL")
# One is put in the place of another, so all have the same columns.
OTHERS = (
    "select region, count(*) as orders from orders group by region",
    "select region, count(*) as orders from orders where customer_id < 5 group by region having count(*) > 2",
    "select name as region, count(*) as orders from customers join orders using (customer_id) group by name",
    "select region, customer_id::bigint as orders from orders where customer_id in (select customer_id from customers)",
)
BEHIND = "select name, stream_id, behind from tide.stream_tables() where tier <> 'frozen'"
DIFFERENCES = """
select (select count(*) from (select * from {table} except all select * from {view}) extra)
       + (select count(*) from (select * from {view} except all select * from {table}) missing)
"""
HISTORY = "select action || coalesce(': ' || error, ''), count(*) from tide.stream_history group by 1"

Connection = psycopg.Connection[Any]


@dataclass
class Outcome:
    transactions: int = 0
    judged: int = 0
    """Stream tables, each under a snapshot by which it had nothing to do."""
    rests: int = 0
    """Times at which all had nothing to do."""
    wrong: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    refreshes: Counter[str] = field(default_factory=Counter)
    settled: bool = True

    @property
    def failed(self) -> int:
        return sum(number for action, number in self.refreshes.items() if action.startswith("FAILED"))

    @property
    def is_right(self) -> bool:
        return self.settled and not self.wrong and not self.failed


class Crowd:
    """A context manager: its writers write until it is left, and pause when they are told to."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._writing, self._ended = threading.Event(), threading.Event()
        self._threads = ThreadPoolExecutor(WRITERS, "writer")
        self.transactions = 0

    def __enter__(self) -> "Crowd":
        self._writing.set()
        self._writers = [self._threads.submit(write, self._url, seed, self._numbers()) for seed in range(WRITERS)]
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._writing.set()
        self._threads.shutdown()
        for writer in self._writers:
            writer.result()

    def pause(self) -> None:
        self._writing.clear()

    def go_on(self) -> None:
        self._writing.set()

    def _numbers(self) -> Iterator[int]:
        for number in count():
            self._writing.wait()
            if self._ended.is_set():
                return
            self.transactions += 1
            yield number


class Judge:
    """In one session, by which stream tables are changed too: so none is dropped between two looks at it."""

    def __init__(self, connection: Connection, outcome: Outcome) -> None:
        self.connection, self._outcome = connection, outcome

    def judge(self) -> bool:
        """Compares those that have nothing to do; whether that was all of them."""
        self.connection.isolation_level = IsolationLevel.REPEATABLE_READ
        try:
            with self.connection.transaction():
                # Before the snapshot: by an older one, a table that was truncated meanwhile is empty.
                self.connection.execute("lock table orders, customers in access share mode")
                lines = self.connection.execute(BEHIND).fetchall()
                for name, number, behind in lines:
                    if behind is None:
                        self._compare(name, number)
        finally:
            self.connection.isolation_level = None
        return all(behind is None for _, _, behind in lines)

    def judge_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.judge()
            time.sleep(min(LOOK_SECONDS, left))

    def rest(self, crowd: Crowd) -> bool:
        """Whether all have nothing to do soon, while no one writes."""
        crowd.pause()
        deadline = time.monotonic() + REST_SECONDS
        while not (at_rest := self.judge()) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        self._outcome.rests += at_rest
        if not at_rest:
            print(f"not at rest after {REST_SECONDS:g} s: {self.connection.execute(BEHIND).fetchall()}")
        crowd.go_on()
        return at_rest

    def _compare(self, name: str, number: int) -> None:
        names = {"table": sql.Identifier(*name.split(".")), "view": sql.Identifier("tide_stream", f"q_{number}")}
        [(rows,)] = self.connection.execute(sql.SQL(DIFFERENCES).format(**names)).fetchall()
        self._outcome.judged += 1
        if rows:
            self._outcome.wrong.append(f"{name}: {rows} rows at {time.strftime('%X')}")


def run(
    database: Database, fleet: Fleet, *, seconds: float, seed: int, pauses: tuple[float, float] = (1.0, 4.0)
) -> Outcome:
    """The loop itself, on servers that run already."""
    chance, outcome = random.Random(seed), Outcome()
    processes = [*(fleet.scheduler() for _ in range(2)), *(fleet.workers(threads=4, processes=2) for _ in range(2))]
    fleet.wait_ready()
    with database.connect() as connection:
        connection.execute(TABLES)
        judge = Judge(connection, outcome)
        for name, query in STREAMS.items():
            _create(connection, chance, name, query)
        with Crowd(database.url) as crowd:
            deadline = time.monotonic() + seconds
            # At least so many, however slow the machine is.
            while time.monotonic() < deadline or outcome.faults.total() < LEAST_FAULTS:
                judge.judge_for(chance.uniform(*pauses))
                outcome.changes[_change(connection, chance)] += 1
                outcome.faults[_harm(chance, fleet, judge)] += 1
                outcome.settled &= judge.rest(crowd)
            for process in processes:
                process.wait_ready()
            outcome.settled &= judge.rest(crowd)
        outcome.settled &= judge.rest(crowd)
        outcome.transactions = crowd.transactions
        outcome.refreshes = Counter(dict(connection.execute(HISTORY).fetchall()))
    return outcome


def _create(connection: Connection, chance: random.Random, name: str, query: str) -> None:
    connection.execute(
        "select tide.create_stream_table(%s, %s, schedule => %s, refresh_mode => %s)",
        [name, query, chance.choice(SCHEDULES), chance.choice(MODES)],
    )


def _change(connection: Connection, chance: random.Random) -> str:
    """Of stream tables: one more, one less, or another query, schedule, mode or tier of one."""
    others = [
        name for (name,) in connection.execute("select name from tide.stream_tables() where name like '%.other%'")
    ]
    query = chance.choice(OTHERS)
    what = chance.choice(["create", "create", "query", "mode", "tier", "drop"])
    if what == "create" and len(others) < MOST_OTHERS:
        _create(connection, chance, f"other{chance.randrange(10**9)}", query)
    elif what == "mode":
        options = [chance.choice(list(STREAMS)), chance.choice(SCHEDULES), chance.choice(MODES)]
        connection.execute("select tide.alter_stream_table(%s, schedule => %s, refresh_mode => %s)", options)
    elif not others:
        return "none"
    elif what == "query":
        connection.execute("select tide.alter_stream_table(%s, query => %s)", [chance.choice(others), query])
    elif what == "tier":
        tier = chance.choice(["hot", "warm", "frozen"])
        connection.execute("select tide.alter_stream_table(%s, tier => %s)", [chance.choice(others), tier])
    else:
        connection.execute("select tide.drop_stream_table(%s)", [chance.choice(others)])
        return "drop"
    return what


def _harm(chance: random.Random, fleet: Fleet, judge: Judge) -> str:
    victim = chance.choice(fleet.wait_for_one())
    kind = type(victim).__name__.removesuffix("Process").lower()
    if chance.random() < 0.15:
        victim.freeze()
        judge.judge_for(FREEZE_SECONDS)
        victim.thaw()
        return f"{kind}: frozen"
    if isinstance(victim, WorkersProcess) and chance.random() < 0.5:
        victim.kill_child()
        what = "one killed"
    else:
        victim.kill()
        what = "killed"
    judge.judge_for(chance.uniform(0, 1))
    victim.start()
    return f"{kind}: {what}"


def table(outcome: Outcome) -> str:
    rows = {
        "transactions": outcome.transactions,
        "stream tables judged": outcome.judged,
        "all at rest": outcome.rests,
        "wrong": len(outcome.wrong),
        "faults": outcome.faults.total(),
    }
    lines = [f"{name:<30}{value:>10,}" for name, value in rows.items()]
    for what, counted in (("refreshes", outcome.refreshes), ("changes", outcome.changes), ("faults", outcome.faults)):
        lines += [f"  {what}: {name} {number:,}" for name, number in sorted(counted.items())]
    return "\n".join(lines + outcome.wrong)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--postgres", type=int, default=18, help="its version, of those that are installed")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tide-streams-kill-loop-"))
    folder.chmod(0o755)
    print(
        f"kill loop with stream tables: {options.seconds:g} s, PostgreSQL {options.postgres}, seed {options.seed}, "
        f"{folder}",
        flush=True,
    )
    with services(folder, options.postgres) as (server, redis):
        database = server.create_database()
        with running_fleet(database.fleet_url(), redis.url, folder / "fleet", quiet=True) as fleet:
            outcome = run(database, fleet, seconds=options.seconds, seed=options.seed)
    print(table(outcome))
    return 0 if outcome.is_right else 1


if __name__ == "__main__":
    sys.exit(main())
