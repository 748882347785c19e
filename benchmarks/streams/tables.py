"""A stream table that is refreshed as a worker does it, in one session, whose CPU is measured."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import IsolationLevel, sql

from benchmarks import proc
from benchmarks.stack import Connection, Database
from relay.drains.fence import FencedSession
from relay.drains.lease import DrainStart, Lease
from relay.drains.refresh import hand_over
from relay.drains.stream_plans import prepare, prepare_change
from relay.models import Drain

LEASE_SECONDS = 3600.0
# No other process works for a session, and each way of refreshing is planned for all rows.
SETTINGS = "set max_parallel_workers_per_gather = 0; set cursor_tuple_fraction = 1"
DIFFERENCES = """
select (select count(*) from (select * from {table} except all select * from {view}) extra)
       + (select count(*) from (select * from {view} except all select * from {table}) missing)
"""


@dataclass
class Spent:
    """CPU seconds of the session, by round."""

    query: list[float] = field(default_factory=list)
    refresh: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    """A refresh that computes the whole query, as of the same changes."""
    concurrently: list[float] = field(default_factory=list)
    """REFRESH MATERIALIZED VIEW CONCURRENTLY."""
    ways: dict[str, None] = field(default_factory=dict)
    """How it was refreshed, in the order in which that occurred."""


class StreamTable:
    """A stream table, filled, and a materialized view of the same query if its rows have a key."""

    def __init__(
        self,
        database: Database,
        name: str,
        query: str,
        key: str | None = None,
        mode: str = "AUTO",
        *,
        append_only: bool = False,
    ) -> None:
        self.name, self.query, self.has_view = name, query, key is not None
        self.faults: list[str] = []
        """Rows that were wrong after a refresh, and errors."""
        self._database = database
        create = "select tide.create_stream_table(%s, %s, refresh_mode => %s, append_only => %s)"
        database.run(create, name, query, mode, append_only)
        self._line, number = database.session.execute(
            "select s.pipeline, s.stream_id from tide.find_stream(%s) s", [name]
        ).fetchall()[0]
        self._names = {"table": sql.Identifier(name), "view": sql.Identifier("tide_stream", f"q_{number}")}
        epoch, drain, revision = database.session.execute(
            "select d.epoch, d.number, p.revision from tide.drain d join tide.pipeline p on p.name = d.pipeline"
            " where p.name = %s",
            [self._line],
        ).fetchall()[0]
        lease = Lease(Drain(self._line, epoch, drain, int(LEASE_SECONDS * 1000)), LEASE_SECONDS, 0)
        self._fenced = FencedSession(database.session, lease, DrainStart("stream", {}, revision, 0))
        prepare(self._fenced)
        self.refresh()
        if mode == "IMMEDIATE" and not hand_over(self._fenced):
            self.faults.append(f"{name}: a writer is in the way")
        database.run(f"analyze {name}")
        if key:
            database.run(f"create materialized view view_{name} as {query}")
            database.run(f"create unique index on view_{name} ({key})")

    @property
    def why_full(self) -> str | None:
        """None if its plan is incremental."""
        return self._database.run("select why_full from tide.stream_tables() where name = 'public.' || %s", self.name)  # type: ignore[no-any-return]

    def refresh(self, spent: Spent | None = None) -> None:
        """Refreshes once, and judges the rows by the query."""
        before = self._last()
        try:
            with cpu(self._session) as seconds, _one_snapshot(self._session):
                missing = self._refresh()[4]
        except psycopg.Error as error:
            self.faults.append(f"{self.name}: {error}")
            if spent:
                spent.refresh.append(math.inf)
                spent.ways["failed"] = None
            return
        way = self._way(before)
        if spent:
            spent.refresh.append(seconds[0])
            spent.ways[way] = None
        if self.judge(f"after a refresh ({way})"):
            self._session.execute("update tide.stream_state set frontier = null")
        if missing:
            prepare_change(self._fenced, missing)

    def _refresh(self) -> Any:
        fenced = self._fenced
        return fenced.check(fenced.execute("stream_refresh", revision=fenced.start.revision))

    def judge(self, when: str = "at the end") -> int:
        """How many rows differ from the query, which is a fault."""
        wrong = int(self._session.execute(sql.SQL(DIFFERENCES).format(**self._names)).fetchall()[0][0])
        if wrong:
            self.faults.append(f"{self.name}: {wrong} rows differ {when}")
        return wrong

    def measure(self, spent: Spent) -> None:
        """The query, a whole refresh that is undone, the refresh, and the materialized view."""
        with cpu(self._session) as seconds, self._session.transaction():
            self._session.execute(f"declare rows no scroll cursor for {self.query}".encode())
            self._session.execute("move forward all in rows")
        spent.query.append(seconds[0])
        with cpu(self._session) as seconds, _one_snapshot(self._session, undone=True):
            self._session.execute(
                "update tide.stream_state set frontier = null where stream_id = (tide.find_stream(%s)).stream_id",
                [self.name],
            )
            self._refresh()
        spent.whole.append(seconds[0])
        self.refresh(spent)
        if self.has_view:
            with cpu(self._session) as seconds:
                self._session.execute(f"refresh materialized view concurrently view_{self.name}".encode())
            spent.concurrently.append(seconds[0])

    @property
    def _session(self) -> Connection:
        return self._database.session

    def _last(self) -> int:
        return int(self._database.run("select coalesce(max(refresh_id), 0) from tide.stream_history"))

    def _way(self, before: int) -> str:
        rows = self._session.execute(
            "select strategy, reason from tide.stream_history where refresh_id > %s order by refresh_id", [before]
        ).fetchall()
        return ", ".join(f"full: {reason}" if strategy == "full" else strategy for strategy, reason in rows) or "none"


@contextmanager
def cpu(session: Connection) -> Iterator[list[float]]:
    """CPU seconds of the session's process, in the list when the body has ended."""
    found: list[float] = []
    before = proc.cpu_seconds(session.info.backend_pid)
    yield found
    found.append(proc.cpu_seconds(session.info.backend_pid) - before)


@contextmanager
def _one_snapshot(session: Connection, undone: bool = False) -> Iterator[None]:
    session.isolation_level = IsolationLevel.REPEATABLE_READ
    try:
        with session.transaction(force_rollback=undone):
            yield
    finally:
        session.isolation_level = None
