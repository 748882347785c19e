"""The proof of a plan: old result + changes = new result, whatever changed.

No engine takes part. What an engine does is done here in the plainest way: the net delta of each source is computed
from a copy of the table, and stands as a CTE in the place of `tide_stream.d_<oid>`.
"""

import itertools
from dataclasses import dataclass, field

import psycopg
from psycopg.rows import scalar_row

from relay.stream_tables import Change, Described, Plan, Read, Source, Unsupported, analyse
from tests.stream_tables.tables import Connection


def describe(connection: Connection, pipeline: str) -> Described:
    row = connection.execute("select tide.stream_describe(%s)", [pipeline]).fetchone()
    assert row
    return Described.from_json(row[0])


def reader(connection: Connection, pipeline: str):
    def read(text: str) -> Read:
        try:
            row = connection.execute("select tide.stream_read(%s, %s)", [pipeline, text]).fetchone()
        except psycopg.Error as error:
            raise Unsupported(str(error).splitlines()[0]) from error
        assert row
        return Read.from_json(row[0])

    return read


@dataclass
class Stream:
    """A stream table and its plan; `reason` if there is none."""

    query: str
    described: Described
    plan: Plan | None
    reason: str | None = None
    seen: dict[str, int] = field(default_factory=dict)

    @property
    def view(self) -> str:
        return f"tide_stream.q_{self.described.stream_id}"

    @property
    def state(self) -> str:
        return f"tide_stream.s_{self.described.stream_id}"

    @property
    def columns(self) -> str:
        return ", ".join(quoted(column.name) for column in self.described.columns)


class Oracle:
    """Stream tables over the tables of a database, and copies of those as they were."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.streams: list[Stream] = []
        self._sources: dict[int, Source] = {}
        self._numbers = itertools.count()

    def add(self, query: str) -> Stream:
        """A stream table with this query, filled."""
        name = f"stream_{next(self._numbers)}"
        self._run("select tide.create_stream_table(%s, %s, initialize => false)", name, query)
        pipeline = self._one("select (tide.find_stream(%s)).pipeline", name)
        described = describe(self.connection, pipeline)
        stream = Stream(query, described, None)
        try:
            stream.plan = analyse(described, reader(self.connection, pipeline))
        except Unsupported as reason:
            stream.reason = str(reason)
        self._run(f"drop trigger tide_stream_guard on {described.table}")
        for source in described.sources:
            self._copy(source)
        if stream.plan and stream.plan.whole:
            self._run(f"create table {stream.state} as {stream.plan.whole}")
        self._fill(stream)
        self.streams.append(stream)
        return stream

    def check(self) -> list[str]:
        """Judges all stream tables after changes, and brings them up to date. What was wrong, in words."""
        written = {oid for oid, source in self._sources.items() if self._find_delta(source)}
        read = [stream for stream in self.streams if any(source.oid in written for source in stream.described.sources)]
        wrong = [each for stream in read for each in self._check(stream)]
        for oid in written:
            self._run(f"truncate old_{oid}; insert into old_{oid} select * from {self._sources[oid].name}")
        return wrong

    def _copy(self, source: Source) -> None:
        if source.oid not in self._sources:
            self._sources[source.oid] = source
            self._run(f"create temp table old_{source.oid} as select * from {source.name}")
            self._run(f"create temp table delta_{source.oid} as select *, 0::bigint as __w from {source.name} limit 0")

    def _find_delta(self, source: Source) -> bool:
        """Whether any row differs, if only in the form of its values."""
        columns = ", ".join(quoted(column.name) for column in source.columns)
        self._run(f"""
            truncate delta_{source.oid};
            insert into delta_{source.oid}
            select {columns}, sum(__w) from (select {columns}, o::text as __form, -1 as __w from old_{source.oid} o
                                              union all select {columns}, n::text, 1 from {source.name} n) both_
             group by {columns}, __form having sum(__w) <> 0""")
        return bool(self._one(f"select exists (select from delta_{source.oid})"))

    def net(self, stream: Stream, source: Source) -> str:
        """The net delta of a source as this stream table sees it: a SELECT."""
        assert stream.plan
        exact = [f"{quoted(name)}::text" for name in stream.plan.exact.get(source.oid, ())]
        columns = [quoted(name) for name in source.captured]
        by = ", ".join([*columns, *exact]) or "()"
        shown = ", ".join([*columns, "sum(__w)::bigint as __w"])
        return f"select {shown} from delta_{source.oid} group by {by} having sum(__w) <> 0"

    def _check(self, stream: Stream) -> list[str]:
        if stream.plan is None:
            return []
        changed = frozenset(
            source.oid
            for source in stream.described.sources
            if self._one(f"select exists ({self.net(stream, source)})")
        )
        if not changed:
            change = None
            strategy = "none"
        else:
            change = stream.plan.change(changed)
            strategy = change.strategy
        stream.seen[strategy] = stream.seen.get(strategy, 0) + 1
        wrong = []
        try:
            if change is None or change.text is None:
                wrong = self._differs(stream) if change is None else []
            elif change.form == "rows":
                wrong = self._differs(stream, self.text(stream, change))
            else:
                wrong = self._state_differs(stream, self.text(stream, change))
        except psycopg.Error as error:
            wrong = [f"{error}"]
        self._fill(stream)
        return [f"{strategy}: {stream.query}: {each}" for each in wrong]

    def text(self, stream: Stream, change: Change) -> str:
        """The statement of a change, with the net deltas in their place."""
        text, ctes = change.text or "", []
        for source in stream.described.sources:
            text = text.replace(f'"tide_stream"."d_{source.oid}"', f"d_{source.oid}")
            ctes.append(f"d_{source.oid} as materialized ({self.net(stream, source)})")
        return f"with {', '.join(ctes)} select * from ({text}) changes_"

    def _differs(self, stream: Stream, changes: str | None = None) -> list[str]:
        """Old rows + changes against the query."""
        columns = stream.columns
        rows = f"select {columns}, 1::bigint as __w from {stream.described.table}"
        if changes:
            rows += f" union all select {columns}, __w from ({changes}) changes_"
        new = f"select {columns}, sum(__w)::bigint as __w from ({rows}) r group by {columns} having sum(__w) <> 0"
        return self._differences(new, f"select {columns}, count(*) from {stream.view} group by {columns}")

    def _state_differs(self, stream: Stream, changes: str) -> list[str]:
        """Old state + changes against the state as computed, and the rows made of it against the query."""
        assert stream.plan and stream.plan.whole
        keys, numbers = state_columns(stream.plan)
        self._run(f"create temp table changes_ as {changes}")
        try:
            if self._has_odd_sum(stream, numbers):
                # It cannot be added to: an engine computes the whole state.
                stream.seen["not a number"] = stream.seen.get("not a number", 0) + 1
                self._fill(stream)
                return self._out_differs(stream)
            groups = f"select {', '.join(keys) or '1'} from changes_ group by {', '.join(keys) or '()'}"
            if self._one("select count(*) from changes_") != self._one(f"select count(*) from ({groups}) g"):
                return ["a group occurs twice"]
            sums = ", ".join([*keys, *(f"sum({name}) as {name}" for name in numbers)])
            by = f"group by {', '.join(keys)} having sum(n) <> 0" if keys else ""
            both = f"select * from {stream.state} union all select * from changes_"
            self._run(f"create temp table new_ as select {sums} from ({both}) r {by}")
            names = ", ".join([*keys, *numbers])
            wrong = self._differences(f"select {names} from new_", f"select {names} from ({stream.plan.whole}) w")
            self._run(f"truncate {stream.state}; insert into {stream.state} select * from new_")
            return [f"state: {each}" for each in wrong] + self._out_differs(stream)
        finally:
            self._run("drop table if exists changes_, new_")

    def _has_odd_sum(self, stream: Stream, numbers: list[str]) -> bool:
        odd = " or ".join(f"{name} in ('NaN', 'Infinity', '-Infinity')" for name in numbers if name.startswith("s"))
        return bool(odd) and any(
            self._one(f"select exists (select from {table} where {odd})") for table in ("changes_", stream.state)
        )

    def _out_differs(self, stream: Stream) -> list[str]:
        assert stream.plan and stream.plan.out
        rows = f"select {stream.columns} from ({stream.plan.out}) o"
        return self._differences(rows, f"select {stream.columns} from {stream.view}")

    def _differences(self, rows: str, right: str) -> list[str]:
        """Of two queries, as multisets."""
        found = self.connection.execute(f"""
            with is_ as materialized ({rows}), right_ as materialized ({right})
            (select 'wrong ' || x_::text from (select * from is_ except all select * from right_) x_)
             union all
            (select 'missing ' || x_::text from (select * from right_ except all select * from is_) x_)
             limit 5""").fetchall()  # type: ignore[arg-type]
        return [row for (row,) in found]

    def _fill(self, stream: Stream) -> None:
        """The stream table, and its state, as they have to be."""
        table, columns = stream.described.table, stream.columns
        self._run(f"truncate {table}; insert into {table} ({columns}) select {columns} from {stream.view}")
        if stream.plan and stream.plan.whole:
            self._run(f"truncate {stream.state}; insert into {stream.state} {stream.plan.whole}")

    def _run(self, statement: str, *values: object) -> None:
        self.connection.execute(statement, values or None)  # type: ignore[arg-type]

    def _one(self, statement: str, *values: object):
        with self.connection.cursor(row_factory=scalar_row) as cursor:
            return cursor.execute(statement, values or None).fetchone()  # type: ignore[arg-type]


def state_columns(plan: Plan) -> tuple[list[str], list[str]]:
    """The columns of the group, and the numbers."""
    numbers = ["n"]
    for number, each in enumerate(plan.fields):
        numbers += [f"c{number}"] + ([f"s{number}"] if each.kind == "sum" else [])
    return [f"k{number}" for number in range(plan.groups)], numbers


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
