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
class Part:
    """A stream table, or a hidden node below one. `view` is what it has to hold: a name, or a query with one."""

    number: int
    table: str
    view: str
    columns: str
    plan: Plan

    @property
    def state(self) -> str:
        return f"tide_stream.s_{self.number}"

    @property
    def rows(self) -> str:
        return f"(select * from {self.view}) v"


@dataclass
class Stream:
    """A stream table and its plan; `reason` if there is none."""

    query: str
    described: Described
    plan: Plan | None
    reason: str | None = None
    seen: dict[str, int] = field(default_factory=dict)

    @property
    def itself(self) -> Part:
        assert self.plan
        columns = ", ".join(quoted(column.name) for column in self.described.columns)
        number = self.described.stream_id
        return Part(number, self.described.table, f"tide_stream.q_{number}", columns, self.plan)

    @property
    def nodes(self) -> list[Part]:
        assert self.plan
        return [
            Part(
                node.number,
                f"tide_stream.n_{node.number}",
                f"({node.query}) q",
                ", ".join(f"c{place}" for place in range(node.width)),
                node.plan,
            )
            for node in self.plan.nodes
        ]


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
        if stream.plan:
            for node in stream.nodes:
                self._run(f"create table {node.table} as select * from {node.view}")
                self._run(f"create temp table delta_n{node.number} as select *, 0::bigint as __w from {node.table}")
            for part in [*stream.nodes, stream.itself]:
                if part.plan.whole:
                    self._run(f"create table {part.state} as {part.plan.whole}")
                self._fill(part)
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
        changed = {
            source.oid
            for source in stream.described.sources
            if self._one(f"select exists ({self.net(stream, source)})")
        }
        strategies: list[str] = []
        wrong: list[str] = []
        for part in [*stream.nodes, stream.itself]:
            mine = frozenset(changed & part.plan.sources)
            change = part.plan.change(mine) if mine else None
            strategies += [change.strategy] if change else []
            try:
                wrong += self._check_part(stream, part, change)
            except psycopg.Error as error:
                wrong.append(f"{error}")
            if part.number == stream.described.stream_id:
                self._fill(part)
            elif self._follow(part):
                changed.add(-part.number)
        strategy = " + ".join(dict.fromkeys(strategies)) or "none"
        stream.seen[strategy] = stream.seen.get(strategy, 0) + 1
        return [f"{strategy}: {stream.query}: {each}" for each in wrong]

    def _check_part(self, stream: Stream, part: Part, change: Change | None) -> list[str]:
        if change is None:
            return self._differs(part)
        if change.text is None:
            return self._whole_differs(stream, part)
        if change.form == "rows":
            return self._differs(part, self.text(stream, change))
        return self._state_differs(stream, part, self.text(stream, change))

    def _whole_differs(self, stream: Stream, part: Part) -> list[str]:
        """What a whole refresh computes over nodes against the query."""
        if part.number != stream.described.stream_id or part.plan.query is None:
            return []
        rows = f"select {part.columns} from ({part.plan.query}) w"
        return self._differences(rows, f"select {part.columns} from {part.rows}")

    def _follow(self, node: Part) -> bool:
        """Brings a node up to date as a refresh does; whether that changed a row. Values that are equal stay."""
        columns, delta = node.columns, f"delta_n{node.number}"
        self._run(f"""
            truncate {delta};
            insert into {delta}
            select {columns}, sum(__w) from (select {columns}, -1 as __w from {node.table}
                                              union all select {columns}, 1 from {node.rows}) both_
             group by {columns} having sum(__w) <> 0;
            create temp table kept_ as
            select {columns} from {node.table}
            except all select {columns} from {delta}, generate_series(1, -__w);
            truncate {node.table};
            insert into {node.table}
            select {columns} from kept_ union all select {columns} from {delta}, generate_series(1, __w);
            drop table kept_""")
        if node.plan.whole:
            self._run(f"truncate {node.state}; insert into {node.state} {node.plan.whole}")
        return bool(self._one(f"select exists (select from {delta})"))

    def text(self, stream: Stream, change: Change) -> str:
        """The statement of a change, with the net deltas in their place."""
        assert stream.plan
        text, ctes = change.text or "", []
        for source in stream.described.sources:
            text = text.replace(f'"tide_stream"."d_{source.oid}"', f"d_{source.oid}")
            ctes.append(f"d_{source.oid} as materialized ({self.net(stream, source)})")
        for node in stream.plan.nodes:
            text = text.replace(f'"tide_stream"."d_n{node.number}"', f"delta_n{node.number}")
        return f"with {', '.join(ctes)} select * from ({text}) changes_"

    def _differs(self, part: Part, changes: str | None = None) -> list[str]:
        """Old rows + changes against the query."""
        columns = part.columns
        rows = f"select {columns}, 1::bigint as __w from {part.table}"
        if changes:
            rows += f" union all select {columns}, __w from ({changes}) changes_"
        new = f"select {columns}, sum(__w)::bigint as __w from ({rows}) r group by {columns} having sum(__w) <> 0"
        return self._differences(new, f"select {columns}, count(*) from {part.rows} group by {columns}")

    def _state_differs(self, stream: Stream, part: Part, changes: str) -> list[str]:
        """Old state + changes against the state as computed, and the rows made of it against the query."""
        assert part.plan.whole
        keys, numbers = state_columns(part.plan)
        self._run(f"create temp table changes_ as {changes}")
        try:
            if self._has_odd_sum(part, numbers):
                # It cannot be added to: an engine computes the whole state.
                stream.seen["not a number"] = stream.seen.get("not a number", 0) + 1
                self._fill(part)
                return self._out_differs(part)
            groups = f"select {', '.join(keys) or '1'} from changes_ group by {', '.join(keys) or '()'}"
            if self._one("select count(*) from changes_") != self._one(f"select count(*) from ({groups}) g"):
                return ["a group occurs twice"]
            sums = ", ".join([*keys, *(f"sum({name}) as {name}" for name in numbers)])
            by = f"group by {', '.join(keys)} having sum(n) <> 0" if keys else ""
            both = f"select * from {part.state} union all select * from changes_"
            self._run(f"create temp table new_ as select {sums} from ({both}) r {by}")
            names = ", ".join([*keys, *numbers])
            wrong = self._differences(f"select {names} from new_", f"select {names} from ({part.plan.whole}) w")
            self._run(f"truncate {part.state}; insert into {part.state} select * from new_")
            return [f"state: {each}" for each in wrong] + self._out_differs(part)
        finally:
            self._run("drop table if exists changes_, new_")

    def _has_odd_sum(self, part: Part, numbers: list[str]) -> bool:
        odd = " or ".join(f"{name} in ('NaN', 'Infinity', '-Infinity')" for name in numbers if name.startswith("s"))
        return bool(odd) and any(
            self._one(f"select exists (select from {table} where {odd})") for table in ("changes_", part.state)
        )

    def _out_differs(self, part: Part) -> list[str]:
        assert part.plan.out
        rows = f"select {part.columns} from ({part.plan.out}) o"
        return self._differences(rows, f"select {part.columns} from {part.rows}")

    def _differences(self, rows: str, right: str) -> list[str]:
        """Of two queries, as multisets."""
        found = self.connection.execute(f"""
            with is_ as materialized ({rows}), right_ as materialized ({right})
            (select 'wrong ' || x_::text from (select * from is_ except all select * from right_) x_)
             union all
            (select 'missing ' || x_::text from (select * from right_ except all select * from is_) x_)
             limit 5""").fetchall()  # type: ignore[arg-type]
        return [row for (row,) in found]

    def _fill(self, part: Part) -> None:
        """The table, and its state, as they have to be."""
        columns = part.columns
        self._run(f"truncate {part.table}; insert into {part.table} ({columns}) select {columns} from {part.rows}")
        if part.plan.whole:
            self._run(f"truncate {part.state}; insert into {part.state} {part.plan.whole}")

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
