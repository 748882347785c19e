"""Sets of queries over generated tables, as they stand in benchmarks/sql/streams."""

import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stack import Database

SQL = Path(__file__).parents[1] / "sql/streams"
KINDS = ("insert", "delete", "update")
_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def statements(*files: str) -> dict[str, str]:
    """What stands under each `-- name: ...`."""
    found: dict[str, str] = {}
    for file in files:
        [_, *parts] = _NAME.split((SQL / file).read_text())
        found |= dict(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))
    return found


@dataclass(frozen=True)
class QuerySet:
    """Tables, what changes them, and queries."""

    name: str
    files: tuple[str, ...]
    rows: int
    """Of the table that grows, in a full run."""
    quick_rows: int
    few: int
    """A change of few rows: of that table, in each of an insert, a delete and an update."""
    keys: dict[str, str]
    """Columns by which rows of a result are unique, where there are such: without them no CONCURRENTLY."""

    @property
    def texts(self) -> dict[str, str]:
        return statements(*self.files)

    @property
    def queries(self) -> dict[str, str]:
        rest = ("tables", "rows", *KINDS, *self.others)
        return {name: text for name, text in self.texts.items() if name not in rest}

    @property
    def others(self) -> list[str]:
        """Changes for which no time is measured."""
        return [name for name in self.texts if name.startswith("other_")]

    def load(self, database: Database, rows: int) -> None:
        database.run("create schema bench")
        for part in ("tables", "rows"):
            database.run(re.sub(r"(?<!:):rows\b", str(rows), self.texts[part]))
        database.run("vacuum (analyze)")

    def change(self, database: Database, number: int) -> None:
        """Inserts, deletes and updates as many rows of the table that grows, and what belongs to them."""
        for kind in KINDS:
            self.run(database, kind, number)

    def run(self, database: Database, name: str, number: int = 0) -> None:
        """One of its changes, in a transaction of its own."""
        text = re.sub(r"(?<!:):n\b", str(number), self.texts[name])
        database.run(f"begin;\n{text}\n;commit")


TPCH = QuerySet(
    "tpch",
    ("tpch_tables.sql", "tpch_queries.sql"),
    150_000,
    15_000,
    10,
    {
        "q01": "l_returnflag, l_linestatus",
        "q03": "l_orderkey",
        "q04": "o_orderpriority",
        "q05": "n_name",
        "q07": "supplying, buying, year",
        "q08": "year",
        "q09": "nation, year",
        "q10": "c_custkey",
        "q11": "ps_partkey",
        "q12": "l_shipmode",
        "q13": "orders",
        "q15": "s_suppkey",
        "q16": "p_brand, p_type, p_size",
        "q18": "o_orderkey",
        "q20": "s_name",
        "q21": "s_name",
        "q22": "country",
    },
)
NEXMARK = QuerySet(
    "nexmark",
    ("nexmark.sql",),
    100_000,
    10_000,
    10,
    {
        "q2": "id",
        "q3": "id",
        "q4": "category",
        "q5": "auction, hour",
        "q6": "seller",
        "q8": "id, hour",
        "q9": "id",
    },
)
PATTERNS = QuerySet(
    "patterns",
    ("patterns.sql",),
    500_000,
    20_000,
    50,
    {
        "cleaned_events": "user_id, page, kind",
        "purchases_of_users": "user_id",
        "state_of_accounts": "account_id",
        "events_by_hour": "hour, kind",
        "present_customers": "version_id",
        "customers_at_a_glance": "customer_id",
        "purchases_by_region": "region, status",
        "totals_of_customers": "customer_id",
        "best_customers": "customer_id",
    },
)
