"""What the capture of a table costs those that write to it: CPU of their session, against a plain table."""

import statistics
from collections.abc import Callable, Iterator
from itertools import count

from benchmarks.figures import Effort, Figure, ratio
from benchmarks.stack import Database, Stack
from benchmarks.streams.tables import SETTINGS, StreamTable, cpu

# Rows of a statement: statements of a round.
STATEMENTS = {1: 400, 1_000: 8}
MOST = 2.0
FAR = 1_000_000
"""Where ids begin that only grow, in statements: those of other numbers of rows lie below or above."""
OTHERS = range(1, 16)
"""Columns beside the key."""
READ = {"all 16 columns read": 15, "5 of 16 columns read": 4, "append_only": 15}
TABLES = {
    "nothing captured": "plain",
    "all 16 columns read": "wide",
    "5 of 16 columns read": "narrow",
    "append_only": "grown",
}
TABLE = """
create table {} (
    id bigint primary key, c1 text not null, c2 int, c3 numeric(12, 2), c4 timestamptz, c5 text, c6 int, c7 int,
    c8 bigint, c9 date, c10 text, c11 boolean, c12 numeric(12, 2), c13 text, c14 int, c15 text
)
"""
INSERT = """
insert into {}
select n, 'name ' || n, n, n / 100.0, now(), 'a text of some length', n, n, n, current_date,
       'another', true, 1.5, 'more', 7, 'the last'
  from generate_series(%s::bigint, %s) n
"""
UPDATE = "update {} set c2 = c2 + 1, c14 = c14 + 1 where id between %s and %s"
DELETE = "delete from {} where id between %s and %s"


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with stack.database("writers") as database:
        database.session.execute(SETTINGS)
        for table in TABLES.values():
            database.run(TABLE.format(table))
        streams = [_stream(database, TABLES[name], columns) for name, columns in READ.items()]
        for rows, statements in STATEMENTS.items():
            variants = {
                (name, kind): _spent(database, kind, table, rows, effort.count(statements))
                for name, table in TABLES.items()
                for kind in (INSERT, UPDATE, DELETE)
                if kind == INSERT or table != "grown"
            }
            for measure in variants.values():
                measure()  # not counted: functions are compiled, statements planned
            found: dict[tuple[str, str], list[float]] = {each: [] for each in variants}
            for _ in range(effort.rounds):
                for each, measure in variants.items():
                    found[each].append(measure())
                for stream in streams:
                    stream.refresh()
                database.run("select tide.stream_clean()")
            yield from _compared(rows, found)
        faults = [fault for stream in streams for fault in stream.faults]
        yield Figure(
            "writers: refreshes that were wrong or failed", str(len(faults)), "0", not faults, "; ".join(faults)
        )


def _stream(database: Database, table: str, columns: int) -> StreamTable:
    read = ", ".join(f"c{number}" for number in OTHERS[:columns])
    return StreamTable(database, f"stream_{table}", f"select id, {read} from {table}", append_only=table == "grown")


def _spent(database: Database, statement: str, table: str, rows: int, statements: int) -> Callable[[], float]:
    """CPU seconds of a statement, of as many in a round, each in a transaction. What is inserted is then deleted,
    unless the table only grows.
    """
    text = statement.format(table).encode()
    rounds = count()

    def measure() -> float:
        first = next(rounds) * statements + FAR if table == "grown" else 0
        with cpu(database.session) as seconds:
            for number in range(first, first + statements):
                database.session.execute(text, [number * rows + 1, (number + 1) * rows])
        return seconds[0] / statements

    return measure


def _compared(rows: int, found: dict[tuple[str, str], list[float]]) -> Iterator[Figure]:
    for kind in (INSERT, UPDATE, DELETE):
        plain = found["nothing captured", kind]
        for name in READ:
            if (name, kind) not in found:
                continue
            ours = found[name, kind]
            value = ratio(ours, plain)
            what = f"{kind.split()[0].upper()} of {rows:,} row{'s' * (rows > 1)} in a statement"
            milliseconds = [statistics.median(each) * 1000 for each in (ours, plain)]
            yield Figure(
                f"{what}, {name} / nothing captured",
                f"{value:.2f}",
                f"at most {MOST:g}",
                value <= MOST,
                f"CPU of the writer: {milliseconds[0]:.3f} ms, {milliseconds[1]:.3f} ms",
            )
