"""What a query is made of: tables, and equalities between their columns.

Everything in FROM has a name of its own here (`names.py`), so that a column is (name, column) wherever it stands.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from sqlglot import exp

from relay.stream_tables.joins import Joins, joins_of
from relay.stream_tables.plan import Column, Described, Source
from relay.stream_tables.trees import bare, distinct_on, groups, items, own, queries_in, where
from relay.stream_tables.types import comparable

Place = tuple[str, str]
"""A column: the name of a table in the query, and that of the column."""


@dataclass(frozen=True)
class Instance:
    """One place where the query reads a table.

    `top` says that each row of the result is made of rows of FROM that have one row of this table each: it is in FROM,
    or in plain subqueries of FROM, and not on the side of an outer join that may be missing.
    """

    alias: str
    source: Source
    top: bool


@dataclass(frozen=True)
class Equality:
    """`one = other`, both columns of tables.

    `holds`: it is true of every row of FROM of the query. `hangs`: which of the two matter only where they are equal
    to the other: rows of that table with another value change nothing, for a row in which the other has its value.
    """

    one: Place
    other: Place
    holds: bool
    hangs: tuple[Place, ...]


class Shape:
    """One SELECT of a query, with everything below it."""

    def __init__(self, select: exp.Select, sources: dict[str, Source], described: Described) -> None:
        self.select = select
        self.described = described
        self._sources = sources
        self._selects: dict[int, tuple[Joins, bool]] = {}
        self._owner: dict[str, exp.Select] = {}
        self._node: dict[str, exp.Expr] = {}
        self.instances: dict[str, Instance] = {}
        self._read(select, top=True)

    def _read(self, select: exp.Select, *, top: bool) -> None:
        joins = joins_of(select)
        self._selects[id(select)] = joins, top
        from_queries = []
        for item in items(select):
            alias = item.alias_or_name
            self._owner[alias], self._node[alias] = select, item
            here = top and alias not in joins.nullable
            if alias in self._sources:
                self.instances[alias] = Instance(alias, self._sources[alias], here)
            elif isinstance(item, exp.Subquery):
                from_queries.append(item.this)
                self._read_query(item.this, top=here and is_plain(item.this, self))
        for query in queries_in(select):
            if not any(query is each for each in from_queries):
                self._read_query(query, top=False)

    def _read_query(self, query: exp.Query, *, top: bool) -> None:
        if isinstance(query, exp.Select):
            self._read(query, top=top)
        else:
            for inner in queries_in(query):
                self._read_query(inner, top=False)

    def owner(self, alias: str) -> exp.Select:
        """The SELECT that has this item in its FROM."""
        return self._owner[alias]

    def column(self, place: Place) -> Column:
        return next(each for each in self.instances[place[0]].source.columns if each.name == place[1])

    def is_aggregate(self, node: exp.Expr) -> bool:
        """Whether it aggregates the rows of its SELECT."""
        if isinstance(node.parent, exp.Window) or (
            isinstance(node.parent, exp.Filter | exp.WithinGroup) and isinstance(node.parent.parent, exp.Window)
        ):
            return False
        if isinstance(node, exp.Anonymous):
            function = self.described.functions.get(node.name)
            return bool(function and function.aggregate)
        return isinstance(node, exp.AggFunc) and not isinstance(node, exp.Filter | exp.WithinGroup)

    def aggregates(self, select: exp.Select) -> list[exp.Expr]:
        """The aggregates of a SELECT, but not those of queries inside it."""
        clause = select.args.get("having")
        roots = [*select.expressions, *([clause.this] if clause else [])]
        return [node for root in roots for node in own(root) if self.is_aggregate(node)]

    def is_grouped(self, select: exp.Select) -> bool:
        return bool(select.args.get("group") or select.args.get("having") or self.aggregates(select))

    def following(self, select: exp.Select) -> list[exp.Column]:
        """Columns beside groups and aggregates: they follow from the key of a group. Also those in queries inside."""
        shown = [
            *select.expressions,
            *filter(None, (select.args.get(name) for name in ("having", "distinct", "order"))),
        ]
        mine = {item.alias_or_name for item in items(select)}
        known, inside = groups(select), {id(node) for value in shown for node in own(value)}

        def is_known(node: exp.Expr) -> bool:
            call = node.this if isinstance(node, exp.Filter | exp.WithinGroup) else node
            return bare(node) in known or (id(node) in inside and self.is_aggregate(call))

        nodes = (node for value in shown for node in value.walk(prune=is_known))
        return [node for node in nodes if isinstance(node, exp.Column) and node.table in mine and not is_known(node)]

    def multiplies(self, select: exp.Select) -> bool:
        """Whether a function may make several rows of one."""
        calls = (node for value in select.expressions for node in own(value) if isinstance(node, exp.Anonymous))
        return any(self.described.functions[c.name].set_returning for c in calls if c.name in self.described.functions)

    def trace(self, value: exp.Expr, within: exp.Select | None = None) -> Place | None:
        """The column of a table that a column is, if a condition on one is a condition on the other. `within` says of
        which SELECT it has to be."""
        value = bare(value)
        if not isinstance(value, exp.Column) or (within and self._owner.get(value.table) is not within):
            return None
        if value.table in self.instances:
            return value.table, value.name
        output = self.output(value)
        return self.through(self._node[value.table].this, output) if output else None

    def origin(self, value: exp.Column) -> Place | None:
        """The column of a table that a column shows, through any subqueries in FROM."""
        if value.table in self.instances:
            return value.table, value.name
        output = self.output(value)
        return self.origin(output) if isinstance(output, exp.Column) else None

    def output(self, value: exp.Column) -> exp.Expr | None:
        """What a column of a subquery in FROM is, in the subquery."""
        node = self._node.get(value.table)
        if not isinstance(node, exp.Subquery) or not isinstance(node.this, exp.Select):
            return None
        return next((bare(each) for each in node.this.expressions if each.alias == value.name), None)

    def through(self, select: exp.Select, output: exp.Expr) -> Place | None:
        """The column of a table that an output column of a subquery is, if a condition on the output may be moved into
        the subquery: it may not past LIMIT, and of groups, DISTINCT ON and windows only if they are made by it."""
        value = bare(output)
        if select.args.get("limit") or select.args.get("offset") or not isinstance(value, exp.Column):
            return None
        on = distinct_on(select)
        if (on and value not in on) or (self.is_grouped(select) and value not in groups(select)):
            return None
        if any(value not in partition for partition in partitions(select)):
            return None
        return self.trace(value, select)

    @cached_property
    def equalities(self) -> tuple[Equality, ...]:
        return tuple(self._equalities(self.select))

    def _equalities(self, select: exp.Select) -> Iterator[Equality]:
        joins, top = self._selects[id(select)]
        mine = frozenset(item.alias_or_name for item in items(select))
        for value in where(select):
            yield from self._of_condition(value, mine, holds=top)
        for condition in joins.conditions:
            holds = top and joins.holds(condition)
            yield from self._of_condition(condition.value, condition.nullable or mine, holds=holds)
        for query in _selects_below(select):
            yield from self._equalities(query)

    def _of_condition(self, value: exp.Expr, hanging: frozenset[str], *, holds: bool) -> Iterator[Equality]:
        """`hanging` are the items that matter only where the condition is true."""
        if isinstance(value, exp.EQ):
            one, other = _uncast(value.this), _uncast(value.expression)
            yield from self._pair(one, other, hanging, holds=holds)
        inside = bare(value.this) if isinstance(value, exp.Not) else value
        if isinstance(inside, exp.In):
            yield from self._of_in(inside, negated=inside is not value)

    def _pair(self, one: exp.Expr, other: exp.Expr, hanging: frozenset[str], *, holds: bool) -> Iterator[Equality]:
        first, second = self.trace(one), self.trace(other)
        if first and second and self._one_equality(first, second):
            hangs = tuple(place for place, side in ((first, one), (second, other)) if _table(side) in hanging)
            yield Equality(first, second, holds, hangs)

    def is_followed(self, value: exp.In, *, negated: bool) -> bool:
        """Whether it says which rows of its query matter."""
        return any(self._of_in(value, negated=negated))

    def _of_in(self, value: exp.In, *, negated: bool) -> Iterator[Equality]:
        """Of NOT IN, only columns that are never null: one null in the list, or beside it, says something of all."""
        query = value.args.get("query")
        select = query.this if isinstance(query, exp.Subquery) else query
        if not isinstance(select, exp.Select):
            return
        left = bare(value.this)
        values = left.expressions if isinstance(left, exp.Tuple) else [left]
        for one, output in zip(values, select.expressions, strict=False):
            first, second = self.trace(_uncast(one)), self.through(select, _uncast(output))
            if not (first and second and self._one_equality(first, second)):
                continue
            if not negated or (self._is_never_null(first) and self._is_never_null(second, alone_in=select)):
                yield Equality(first, second, holds=False, hangs=(second,))

    def _one_equality(self, one: Place, other: Place) -> bool:
        first, second = self.column(one), self.column(other)
        return first.hashable and second.hashable and comparable(first.type, second.type)

    def _is_never_null(self, place: Place, alone_in: exp.Select | None = None) -> bool:
        """Of a column of the query's FROM, or of the one table of a subquery."""
        alias = place[0]
        alone = alone_in is not None and [item.alias_or_name for item in items(alone_in)] == [alias]
        return self.column(place).not_null and (self.instances[alias].top or alone)


def is_plain(query: exp.Query, shape: Shape) -> bool:
    """Whether each of its rows is made of one row of each table in its FROM."""
    return (
        isinstance(query, exp.Select)
        and not any(query.args.get(clause) for clause in ("limit", "offset", "distinct"))
        and not shape.is_grouped(query)
        and not has_windows(query)
    )


def has_windows(select: exp.Select) -> bool:
    return any(isinstance(node, exp.Window) for value in select.expressions for node in own(value))


def partitions(select: exp.Select) -> list[list[exp.Expr]]:
    """By which values each of its windows is partitioned."""
    windows = [node for value in select.expressions for node in own(value) if isinstance(node, exp.Window)]
    return [[bare(value) for value in window.args.get("partition_by") or ()] for window in windows]


def _selects_below(select: exp.Select) -> Iterator[exp.Select]:
    for query in queries_in(select):
        inner = [query] if isinstance(query, exp.Select) else queries_in(query)
        yield from (each for each in inner if isinstance(each, exp.Select))


def _table(value: exp.Expr) -> str:
    return value.table if isinstance(value, exp.Column) else ""


def _uncast(value: exp.Expr) -> exp.Expr:
    """A varchar is compared as text: what is cast is the column all the same."""
    value = bare(value)
    if isinstance(value, exp.Cast) and value.to.sql() == "TEXT" and isinstance(bare(value.this), exp.Column):
        return bare(value.this)
    return value
