"""What writers pay who maintain a stream table in their transactions: CPU of their session, against a plain table."""

import statistics
from collections.abc import Callable, Iterator

from benchmarks.figures import Effort, Figure, ratio
from benchmarks.stack import Database, Stack
from benchmarks.streams.tables import SETTINGS, StreamTable, cpu

# Rows of a statement: statements of a round.
STATEMENTS = {1: 400, 1_000: 8}
ROWS, CUSTOMERS, REGIONS = 50_000, 5_000, 50
FIRST = 1_000_000
"""The least id of a row that is written."""
MOST = {
    1: {"captured": 3.0, "rows": 8.0, "groups": 12.0, "everyone": 12.0},
    1_000: {"captured": 4.0, "rows": 12.0, "groups": 5.0, "everyone": 100.0},
}
MODES = {
    "captured": ("captured, refreshed on a schedule", "select id, region, amount from captured where amount > 0"),
    "rows": ("IMMEDIATE, rows with a key", "select id, region, amount from rows where amount > 0"),
    "groups": (
        "IMMEDIATE, sums by groups",
        "select region, count(*) as orders, sum(amount) as amount from groups group by region",
    ),
    "everyone": (
        "IMMEDIATE, a LEFT JOIN by customer",
        """select c.id, c.name, count(o.id) as orders, sum(o.amount) as amount
             from customers c left join everyone o on o.customer_id = c.id group by c.id, c.name""",
    ),
}
TABLE = """
create table {0} (id bigint primary key, customer_id int not null, region text not null, amount numeric(12, 2));
create index on {0} (customer_id)
"""
INSERT = f"""
insert into {{}}
select n, 1 + mod(n, {CUSTOMERS}), 'r' || mod(n, {REGIONS}), mod(n, 1000) from generate_series(%s::bigint, %s) n
"""
UPDATE = "update {} set amount = amount + 1 where id between %s and %s"
DELETE = "delete from {} where id between %s and %s"


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    with stack.database("immediate") as database:
        database.session.execute(SETTINGS)
        database.run("create table customers (id int primary key, name text)")
        database.run("insert into customers select n, 'customer ' || n from generate_series(1, %s) n", CUSTOMERS)
        for table in ("plain", *MODES):
            database.session.execute(TABLE.format(table).encode())
            database.run(INSERT.format(table), 1, ROWS)
        database.run("analyze")
        streams = [_stream(database, table, query) for table, (_, query) in MODES.items()]
        for rows, statements in STATEMENTS.items():
            variants = {
                (table, kind): _spent(database, kind, table, rows, effort.count(statements))
                for table in ("plain", *MODES)
                for kind in (INSERT, UPDATE, DELETE)
            }
            for measure in variants.values():
                measure()  # not counted: functions are compiled, statements planned
            found: dict[tuple[str, str], list[float]] = {each: [] for each in variants}
            for _ in range(effort.rounds):
                for each, measure in variants.items():
                    found[each].append(measure())
                streams[0].refresh()
                database.run("select tide.stream_clean()")
            yield from _compared(rows, found)
        for stream in streams:
            stream.judge()
        faults = [fault for stream in streams for fault in stream.faults]
        yield Figure(
            "IMMEDIATE: stream tables that differ from their query",
            str(len(faults)),
            "0",
            not faults,
            "; ".join(faults),
        )


def _stream(database: Database, table: str, query: str) -> StreamTable:
    return StreamTable(database, f"stream_{table}", query, mode="DIFFERENTIAL" if table == "captured" else "IMMEDIATE")


def _spent(database: Database, statement: str, table: str, rows: int, statements: int) -> Callable[[], float]:
    """CPU seconds of a statement, of as many in a round, each in a transaction. What is inserted is then deleted."""
    text = statement.format(table).encode()

    def measure() -> float:
        with cpu(database.session) as seconds:
            for number in range(statements):
                first = FIRST + number * rows
                database.session.execute(text, [first, first + rows - 1])
        return seconds[0] / statements

    return measure


def _compared(rows: int, found: dict[tuple[str, str], list[float]]) -> Iterator[Figure]:
    for kind in (INSERT, UPDATE, DELETE):
        plain = found["plain", kind]
        for table, (name, _) in MODES.items():
            ours = found[table, kind]
            value = ratio(ours, plain)
            what = f"{kind.split()[0].upper()} of {rows:,} row{'s' * (rows > 1)} in a statement"
            milliseconds = [statistics.median(each) * 1000 for each in (ours, plain)]
            yield Figure(
                f"{what}, {name} / plain table",
                f"{value:.2f}",
                f"at most {MOST[rows][table]:g}",
                value <= MOST[rows][table],
                f"CPU of the writer: {milliseconds[0]:.3f} ms, {milliseconds[1]:.3f} ms",
            )
