"""How far behind many stream tables of one table are, while it is written to without end and a fleet refreshes them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.figures import Effort, Figure, percentile
from benchmarks.stack import Database, Stack, wait_until

TABLES = 200
QUICK_TABLES = 20
SCHEDULE_SECONDS = 1.0
MOST = 2.0
SECONDS = 30.0
WRITE_SECONDS = 0.05
LOOK_SECONDS = 0.1
LIMIT_SECONDS = 600.0
SOURCE = """
create table sale (
    sale_id int generated always as identity primary key, region text not null, amount numeric(12, 2) not null
);
insert into sale (region, amount) select 'region ' || n % 50, n % 1000 from generate_series(1, 20000) n;
"""
QUERY = "select region, count(*) as sales, sum(amount) as amount from sale where amount >= {} group by region"
WRITE = "insert into sale (region, amount) select 'region ' || n, 1000 from generate_series(1, 5) n"
FOLLOWED = """
select count(distinct h.stream_id) >= %s from tide.stream_history h where h.action = 'DIFFERENTIAL'
"""
SECONDS_BEHIND = "select extract(epoch from clock_timestamp() - data_timestamp)::float8 from tide.stream_state"


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    number = TABLES if effort.scale >= 1 else QUICK_TABLES
    with stack.database("staleness") as database:
        database.run(SOURCE)
        database.run("vacuum (analyze)")
        for each in range(number):
            database.run(
                "select tide.create_stream_table(%s, %s, %s)",
                f"totals{each}",
                QUERY.format(each),
                f"{SCHEDULE_SECONDS:g}s",
            )
        with stack.relay(database), _writing(database):
            wait_until(lambda: bool(database.run(FOLLOWED, number)), "all are followed", LIMIT_SECONDS, 0.5)
            behind = _behind(database, effort.count(int(SECONDS)))
        failed = database.run("select count(*) from tide.stream_history where action = 'FAILED'")
    value = percentile(behind, 99) / SCHEDULE_SECONDS
    yield Figure(
        f"staleness of {number} stream tables of one table, p99 / schedule of {SCHEDULE_SECONDS:g} s",
        f"{value:.2f}",
        f"below {MOST:g}",
        value < MOST,
        f"p50 {percentile(behind, 50):.2f} s, at most {max(behind):.2f} s",
    )
    yield Figure("their refreshes that failed", str(failed), "0", not failed)


def _behind(database: Database, seconds: float) -> list[float]:
    """How many seconds each stream table was behind, as often as one looks."""
    found: list[float] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found += [value for (value,) in database.session.execute(SECONDS_BEHIND)]
        time.sleep(LOOK_SECONDS)
    return found


@contextmanager
def _writing(database: Database) -> Iterator[None]:
    done = threading.Event()

    def write() -> None:
        with database.connect() as session:
            while not done.wait(WRITE_SECONDS):
                session.execute(WRITE)

    writer = threading.Thread(target=write, name="writer")
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()
