"""What a table that is an outbox costs its writers: each statement in a transaction, against a plain table."""

import random
import time
from collections.abc import Callable, Iterator

from benchmarks.figures import Effort, Figure, in_turns, ratio, spread
from benchmarks.stack import Database, Stack

# Rows of a statement: statements of a round.
STATEMENTS = {1: 300, 100: 60, 10_000: 3}
# Those that are updated; what is inserted lies above.
SEEDED = 50_000

TABLES = """
create schema bench;
create table bench.plain (
    id bigint generated always as identity primary key, customer text not null, currency text not null,
    total numeric not null, note text, updated_at timestamptz not null default now()
);
create table bench.statement (like bench.plain including all);
create table bench.row (like bench.plain including all);
"""
INSERT = """
insert into {} (customer, currency, total, note)
select 'customer-' || n, 'EUR', 129.95, 'leave at the door' from generate_series(1, {}) n
"""
UPDATE = "update {} set total = total + 1, updated_at = now() where id > %s and id <= %s"
TABLE_NAMES = ("plain", "statement", "row")


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with stack.database("table_outboxes") as database:
        database.session.execute(TABLES)
        for table in TABLE_NAMES:
            database.run(INSERT.format(f"bench.{table}", SEEDED))
        database.session.execute("vacuum analyze")
        for mode in TABLE_NAMES[1:]:
            database.run("select tide.table_outbox_enable(%s::regclass, mode => %s)", f"bench.{mode}", mode)
        for kind, make in (("INSERT", _insert), ("UPDATE", _update)):
            for rows, statements in STATEMENTS.items():
                variants = {table: make(database, table, rows, effort.count(statements)) for table in TABLE_NAMES}
                in_turns(variants, 1)  # not counted: functions are compiled, statements planned
                yield from _compared(kind, rows, in_turns(variants, effort.rounds))


def _compared(kind: str, rows: int, results: dict[str, list[float]]) -> Iterator[Figure]:
    for mode in TABLE_NAMES[1:]:
        yield Figure(
            f"{kind} of {rows:,} row{'s' * (rows > 1)} in a statement, mode {mode} / plain table",
            f"{ratio(results[mode], results['plain']):.2f} times the time",
            note=f"a row: ours {spread(results[mode], ' µs')}, plain {spread(results['plain'], ' µs')}",
        )


def _insert(database: Database, table: str, rows: int, statements: int) -> Callable[[], float]:
    statement = INSERT.format(f"bench.{table}", rows).encode()
    return lambda: _microseconds(database, statement, lambda: None, rows, statements)


def _update(database: Database, table: str, rows: int, statements: int) -> Callable[[], float]:
    def somewhere() -> tuple[int, int]:
        first = random.randrange(SEEDED - rows)
        return first, first + rows

    return lambda: _microseconds(database, UPDATE.format(f"bench.{table}").encode(), somewhere, rows, statements)


def _microseconds(
    database: Database, statement: bytes, parameters: Callable[[], tuple[int, int] | None], rows: int, statements: int
) -> float:
    """Of a row."""
    began = time.perf_counter()
    for _ in range(statements):
        database.session.execute(statement, parameters(), prepare=True)
    return (time.perf_counter() - began) / (statements * rows) * 1e6
