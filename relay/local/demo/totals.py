"""The stream table of `relay demo`: what each customer has bought, kept equal to its query, with changes delivered."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from relay.database.connection import Connection
from relay.local.demo.orders import Ledger
from relay.sql import query

TABLE = "public.totals"
QUERY = "select customer, count(*) as orders, sum(total) as total from public.sold group by customer"
SCHEDULE = "500ms"
OUTBOX = TABLE
PIPELINE = "totals-to-file"

Rows = Counter[tuple[str, int, Decimal]]
"""Customer, orders, total: how often each row is there."""


@dataclass(frozen=True, slots=True)
class TotalsVerdict:
    """The result of the stream table."""

    orders: int
    """That it counts."""
    uncounted: int
    """Committed, and not counted; or counted, and not committed."""
    rows: int
    different: int
    """Rows of the table that are not in the result of its query, or the other way around."""
    changes: int
    """Messages that the pipeline delivered."""
    not_rebuilt: int
    """Rows that the delivered changes, added up, do not give, or give and are not there."""

    @property
    def right(self) -> bool:
        return self.rows > 0 and not (self.uncounted or self.different or self.not_rebuilt)


def judge_totals(ledger: Ledger, table: Rows, result: Rows, delivered: Iterable[str]) -> TotalsVerdict:
    """Compares the table with its query, what it counts with what was committed, and what was delivered with the table.

    `delivered` are the complete lines of the file, each an envelope; a message that came twice counts once.
    """
    changes = {change["message_id"]: change["payload"] for change in map(_parse, delivered)}
    rebuilt: Rows = Counter()
    for message_id in sorted(changes):
        rebuilt.update(_rows(changes[message_id]["inserted"]))
        rebuilt.subtract(_rows(changes[message_id]["deleted"]))
    counted = sum(orders for _, orders, _ in table.elements())
    return TotalsVerdict(
        orders=counted,
        uncounted=abs(len(ledger.committed) - counted),
        rows=table.total(),
        different=_differences(table, result),
        changes=len(changes),
        not_rebuilt=_differences(table, rebuilt),
    )


def read_totals(connection: Connection) -> tuple[Rows, Rows]:
    """The rows of the table, and those of its query, of one snapshot."""
    row = connection.execute(query("demo_totals")).fetchone()
    assert row is not None
    table, result = (Counter(_rows(_parse(text))) for text in row)
    return table, result


def delivered_lines(path: Path) -> list[str]:
    """What has arrived so far."""
    if not path.exists():
        return []
    return [line for line in path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _parse(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


def _rows(rows: Iterable[dict[str, Any]]) -> list[tuple[str, int, Decimal]]:
    return [(row["customer"], row["orders"], Decimal(row["total"])) for row in rows]


def _differences(one: Rows, other: Rows) -> int:
    return sum(abs(one[row] - other[row]) for row in one.keys() | other.keys())
