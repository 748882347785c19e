"""What a refresh of a stream table costs, beside its query, a refresh of the whole, and a materialized view."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.figures import Effort, Figure, ratio
from benchmarks.stack import Stack
from benchmarks.streams.sets import QuerySet
from benchmarks.streams.tables import SETTINGS, Spent, StreamTable

PART = 0.01
"""The large change, of the table that grows."""


@dataclass
class Result:
    """Of one set of queries, by query."""

    name: str
    few: dict[str, Spent] = field(default_factory=dict)
    many: dict[str, Spent] = field(default_factory=dict)
    why_full: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def measured(stack: Stack, effort: Effort, queries: QuerySet, rows: int | None = None) -> Result:
    """`rows`: of the table that grows, if not those of the effort."""
    rows = rows or (queries.rows if effort.scale >= 1 else queries.quick_rows)
    result = Result(queries.name)
    with stack.database(queries.name) as database:
        database.session.execute(SETTINGS)
        queries.load(database, rows)
        tables = [StreamTable(database, name, text, queries.keys.get(name)) for name, text in queries.queries.items()]
        queries.change(database, queries.few)  # not counted: functions are compiled, and what is read comes into memory
        for table in tables:
            table.refresh()
        for found, number in ((result.few, queries.few), (result.many, max(1, int(rows * PART)))):
            for _ in range(effort.rounds):
                queries.change(database, number)
                for table in tables:
                    table.measure(found.setdefault(table.name, Spent()))
                database.run("select tide.stream_clean()")
        for other in queries.others:
            queries.run(database, other)
            for table in tables:
                table.refresh()
        result.why_full = {table.name: why for table in tables if (why := table.why_full)}
        result.faults = [fault for table in tables for fault in table.faults]
    return result


def figures(result: Result, few: int) -> Iterator[Figure]:
    """A line for each query and size of the change."""
    for size, spent in ((f"{few} rows", result.few), ("1 %", result.many)):
        for name, each in spent.items():
            note = "; ".join(_notes(each))
            what = f"{result.name} {name}, {size} changed: refresh / query"
            yield Figure(what, f"{ratio(each.refresh, each.query):.2f}", note=note)
    yield Figure(
        f"{result.name}: refreshes that were wrong or failed",
        str(len(result.faults)),
        "0",
        not result.faults,
        "; ".join(result.faults),
    )


def _notes(each: Spent) -> Iterator[str]:
    yield " / ".join(each.ways)
    named = {"refresh": each.refresh, "query": each.query, "as a whole": each.whole, "CONCURRENTLY": each.concurrently}
    yield ", ".join(f"{name} {statistics.median(found) * 1000:.1f} ms" for name, found in named.items() if found)


def summary(result: Result, fast: int | None = None) -> Iterator[Figure]:
    """Of the whole set; `fast`: how many are to be faster than their query, with few changes."""
    number = len(result.few)
    reasons = "; ".join(f"{name}: {why}" for name, why in result.why_full.items())
    yield Figure(f"{result.name}: incremental, of {number}", str(number - len(result.why_full)), note=reasons)
    slower = [name for name, each in result.few.items() if ratio(each.refresh, each.query) >= 1]
    faster = number - len(slower)
    yield Figure(
        f"{result.name}: faster than the query with few changes, of {number}",
        str(faster),
        f"at least {fast}" if fast else "",
        faster >= fast if fast else None,
        f"not {', '.join(slower)}" if slower else "",
    )
    against = {
        f"{name}, {size}": ratio(each.refresh, each.whole)
        for size, spent in (("few", result.few), ("1 %", result.many))
        for name, each in spent.items()
    }
    worst = max(against, key=lambda name: against[name])
    note = f"{worst}; {sum(value > 1 for value in against.values())} of {len(against)} above 1"
    yield Figure(
        f"{result.name}: refresh in AUTO / as a whole, the slowest",
        f"{against[worst]:.2f}",
        "at most 2",
        against[worst] <= 2,
        note,
    )
