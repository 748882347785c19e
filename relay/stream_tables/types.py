"""Types of PostgreSQL, as `format_type` writes them: what equality means, and what can be summed exactly."""

import re

from relay.stream_tables.plan import Column

INTEGERS = ("smallint", "integer", "bigint")
TEXTS = ("text", "character varying")
EXACT = {
    *INTEGERS, *TEXTS, "oid", "boolean", "date", "timestamp without time zone", "timestamp with time zone",
    "time without time zone", "time with time zone", "uuid", "bytea", "name", '"char"', "macaddr", "macaddr8", "inet",
    "cidr", "pg_lsn",
}  # fmt: skip
"""Types of which equal values are the same: there is no difference to be seen by any function."""


def base(type_name: str) -> str:
    """Without modifiers: numeric of numeric(10,2)."""
    return re.sub(r"\(.*?\)", "", type_name)


def comparable(one: str, other: str) -> bool:
    """Whether `=` between columns of these types is one equality for both."""
    first, second = base(one), base(other)
    return first == second or {first, second} <= set(INTEGERS) or {first, second} <= set(TEXTS)


def scale(column: Column) -> int | None:
    """The number of fractional digits that every value of a column has; None if they differ."""
    if base(column.type) in INTEGERS:
        return 0
    found = re.fullmatch(r"numeric\(\d+,(-?\d+)\)", column.type)
    return max(int(found[1]), 0) if found else column.digits


def one_form(column: Column) -> bool:
    """Whether equal values of the column are the same value: 1.5 and 1.50 are equal, but differ as texts."""
    kind = base(column.type)
    if kind == "numeric":
        return scale(column) is not None
    return column.deterministic and (kind in EXACT or (kind == "character" and "(" in column.type))
