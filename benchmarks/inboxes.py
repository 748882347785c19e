"""Workers that claim messages of an inbox and mark them, against plain tables, with locks for claims or with leases.

A lock is the least: one transaction and one new version of each row, but no one may commit while the batch is in hand.
A lease is what an inbox gives: two transactions and two versions.
"""

import statistics
import time
from collections.abc import Callable, Iterator

from benchmarks.figures import Effort, Figure, in_turns, ratio, spread
from benchmarks.pgbench import PAYLOAD, seconds_for
from benchmarks.stack import Database, Stack

PENDING = 100_000
AGGREGATES = 10_000
BATCH = 100
CLAIMS = 480
WORKERS = (1, 8)

ORDERED = 1_000_000
ORDERED_AGGREGATES = 100_000
LOOKS = 20

TABLES = """
select tide.inbox_create('i');
select tide.inbox_create('ordered');
select tide.enable_inbox_ordering('ordered');
create schema bench;
create table bench.leases (like tide.i including all) with (autovacuum_vacuum_scale_factor = 0.02);
create table bench.locks (like tide.i including defaults including identity, primary key (event_id))
    with (autovacuum_vacuum_scale_factor = 0.02);
create index on bench.locks (inbox_seq) where processed_at is null;
"""
FILL = """
insert into {} (event_id, event_type, aggregate_id, event_sequence, payload)
select 'event-' || n, 'order', 'customer-' || (hashint8(n) & 2147483647) %% {}, n, %s::jsonb
  from generate_series(1, {}) n
"""


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with stack.database("inboxes") as database:
        database.session.execute(TABLES)
        for workers in WORKERS:
            yield from _claims(database, workers, effort)
        yield from _next(database, effort)


def _claims(database: Database, workers: int, effort: Effort) -> Iterator[Figure]:
    def measure(script: str, schema: str, table: str) -> Callable[[], float]:
        def measured() -> float:
            _fill(database, f"{schema}.{table}", PENDING, AGGREGATES)
            seconds = seconds_for(
                database.url, script, clients=workers, transactions=effort.count(CLAIMS) // workers,
                batch=BATCH, table=table,
            )  # fmt: skip
            done = database.run(f"select count(*) from {schema}.{table} where processed_at is not null")
            return float(done) / seconds

        return measured

    results = in_turns(
        {
            "locks": measure("claim_locks.sql", "bench", "locks"),
            "leases": measure("claim_leases.sql", "bench", "leases"),
            "ours": measure("claim.sql", "tide", "i"),
            "ordered": measure("claim.sql", "tide", "ordered"),
        },
        effort.rounds,
    )
    who = f"{workers} worker{'s' * (workers > 1)}, {PENDING:,} pending, batch {BATCH}"
    yield Figure(
        f"{who}: inbox_claim, inbox_mark_processed / leases in plain SQL",
        f"{ratio(results['ours'], results['leases']):.2f}",
        note=f"messages: ours {spread(results['ours'])}, bare {spread(results['leases'])}",
    )
    yield Figure(
        f"{who}: the same / FOR UPDATE SKIP LOCKED, one transaction", f"{ratio(results['ours'], results['locks']):.2f}",
        note=f"messages: bare {spread(results['locks'])}; a lease is a commit and a version of each row more",
    )  # fmt: skip
    yield Figure(
        f"{who}: with an order, {AGGREGATES:,} aggregates / without",
        f"{ratio(results['ordered'], results['ours']):.2f}", note=f"messages {spread(results['ordered'])}",
    )  # fmt: skip


def _fill(database: Database, table: str, messages: int, aggregates: int) -> None:
    database.run(f"truncate {table}")
    database.run(FILL.format(table, aggregates, messages), PAYLOAD)
    database.run(f"vacuum (analyze) {table}")


def _next(database: Database, effort: Effort) -> Iterator[Figure]:
    messages, aggregates = effort.count(ORDERED), effort.count(ORDERED_AGGREGATES)
    database.run("select tide.inbox_create('large')")
    _fill(database, "tide.large", messages, aggregates)
    database.run("select tide.enable_inbox_ordering('large')")
    database.run("analyze tide.large")
    ours = _milliseconds(database, "select * from tide.next_large limit 100", effort.count(LOOKS))
    every = _milliseconds(database, "select count(*) from tide.next_large", 1)
    by_hand = _milliseconds(
        database,
        "select distinct on (aggregate_id) * from tide.large where processed_at is null"
        " order by aggregate_id, event_sequence limit 100",
        effort.count(LOOKS),
    )
    pending = _milliseconds(
        database, "select * from tide.large_pending order by inbox_seq limit 100", effort.count(LOOKS)
    )
    yield Figure(
        f"next_<inbox> of {messages:,} pending in {aggregates:,} aggregates: 100 rows", f"{ours:.2f} ms",
        note=f"DISTINCT ON by hand along the same index {by_hand:.2f} ms; "
        f"100 rows of <inbox>_pending {pending:.2f} ms; counting all {aggregates:,} takes {every:,.0f} ms",
    )  # fmt: skip


def _milliseconds(database: Database, statement: str, looks: int) -> float:
    times = []
    for _ in range(looks):
        began = time.perf_counter()
        database.session.execute(statement.encode()).fetchall()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)
