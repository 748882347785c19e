"""One stream table: everything about it, how it is refreshed and why, and what its refreshes did."""

from dataclasses import dataclass
from datetime import datetime

from relay.operations.base import Connection, rows
from relay.operations.stream_tables import StreamTable


@dataclass(frozen=True, slots=True)
class Source:
    """A table that the query reads."""

    name: str
    pending_rows: int | None
    """Changes that the next refresh looks at; None: it computes everything."""
    buffer_bytes: int
    """Of the table that holds changes of this source, for all its readers."""


@dataclass(frozen=True, slots=True)
class Node:
    """A hidden table, or, as the last of them, the stream table itself."""

    place: int
    """In the order in which they are refreshed."""
    relation: str
    kind: str
    """rows, or state: counts and sums by group, from which its rows are computed."""
    reads: list[str]
    strategies: list[str]
    """By which it follows changes of what it reads."""
    is_populated: bool
    rows_estimate: int | None
    """As the planner has it; None: it was never analyzed."""
    table_bytes: int
    """With indexes."""
    state_bytes: int | None
    """Of the counts and sums; None: it has none."""
    query: str


@dataclass(frozen=True, slots=True)
class StreamDetails(StreamTable):
    """Everything that is known of a stream table."""

    query: str
    created_at: datetime
    last_refresh_at: datetime | None
    sources: list[Source]
    nodes: list[Node]
    """None while its query is not analysed, or if it can only be computed as a whole."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """How a refresh is done after these tables changed together."""

    changed: list[str]
    strategy: str
    """linear, keyed, two states, groups or full."""
    reason: str | None
    """Why it is `full`."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a stream table is refreshed, why, and what would suit it better."""

    configured_mode: str
    effective_mode: str
    why_full: str | None
    strategies: list[Strategy]
    """One for each set of tables that has changed together so far, and for each table alone."""
    used: dict[str, int]
    """How many refreshes of its history used each strategy."""
    recommended_mode: str
    """DIFFERENTIAL, FULL or KEEP."""
    confidence: str
    recommended_because: str


@dataclass(frozen=True, slots=True)
class Refresh:
    """One refresh that found something to do, or failed."""

    refresh_id: int
    start_time: datetime
    end_time: datetime
    duration_ms: float
    action: str
    """DIFFERENTIAL, FULL or FAILED."""
    status: str
    """COMPLETED or FAILED."""
    strategy: str | None
    reason: str | None
    source_rows: int | None
    """Rows of its sources that had changed; None: not counted."""
    rows_inserted: int
    rows_updated: int
    rows_deleted: int
    error_message: str | None


def show(connection: Connection, name: str) -> StreamDetails:
    """Raises ConfigError if there is no such stream table."""
    [row] = rows(connection, "stream_show", name=name)
    parts = {
        "sources": [Source(**source) for source in row["sources"]],
        "nodes": [Node(**node) for node in row["nodes"]],
    }
    return StreamDetails(**row | parts)


def explain(connection: Connection, name: str) -> Explanation:
    """Raises ConfigError if there is no such stream table."""
    [row] = rows(connection, "stream_explain", name=name)
    found = rows(connection, "stream_strategies", name=name)
    return Explanation(**row, strategies=[Strategy(**one) for one in found])


def history(connection: Connection, name: str, *, limit: int) -> list[Refresh]:
    """The newest first. Raises ConfigError if there is no such stream table."""
    return [Refresh(**row) for row in rows(connection, "stream_history", name=name, max_rows=limit)]
