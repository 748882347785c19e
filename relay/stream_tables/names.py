"""A name of its own for everything in FROM, wherever in the query it is: t1, t2 ... So a column says by itself which
table it is of, whichever SELECT it stands in. Lists of column names and USING are written out on the way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count

from sqlglot import exp

from relay.stream_tables.dialect import parse_table
from relay.stream_tables.plan import Described, Source, Unsupported
from relay.stream_tables.trees import (
    column,
    identifier,
    is_group,
    is_table,
    items,
    lateral_query,
    named,
    own,
    queries_in,
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """What a name stands for: its new name, and the columns by their names."""

    alias: str
    columns: Mapping[str, str]


Scope = Mapping[str, Item]


@dataclass
class Names:
    """The names given. `sources` says of which table each name of a table is."""

    described: Described
    sources: dict[str, Source] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tables = {_key(parse_table(source.name)): source for source in self.described.sources}
        self._next = count(1)

    def give(self, query: exp.Query, outer: Scope | None = None) -> None:
        """Names everything in a query. Raises Unsupported."""
        outer = outer or {}
        if isinstance(query, exp.Select):
            self._give_select(query, outer)
        else:
            for inner in queries_in(query):
                self.give(inner, outer)

    def _give_select(self, select: exp.Select, outer: Scope) -> None:
        in_from = list(items(select))
        subqueries = [item.this for item in in_from if isinstance(item, exp.Subquery)]
        inner = queries_in(select)
        for query in subqueries:
            self.give(query, outer)
        for query in filter(None, map(lateral_query, in_from)):
            _name_outputs(query)
        scope = {item.alias_or_name: self._item(item) for item in in_from}
        if len(scope) != len(in_from):
            raise Unsupported("two tables in FROM have one name")
        _write_out_using(select, scope)
        for node in list(own(select)):
            if isinstance(node, exp.Column):
                _resolve(node, scope, outer)
        for query in inner:
            if not any(query is subquery for subquery in subqueries):
                self.give(query, {**outer, **scope})
        for item in in_from:
            self._rename(item, scope[item.alias_or_name])
        _name_outputs(select)

    def _item(self, item: exp.Expr) -> Item:
        alias = item.args.get("alias")
        given = [name.name for name in (alias.args.get("columns") or ())] if alias else []
        if is_table(item):
            source = self._tables.get(_key(item))
            if source is None:
                raise Unsupported(f"{item.name} is no table whose changes are captured")
            real = [each.name for each in source.columns]
            new = f"t{next(self._next)}"
            self.sources[new] = source
        elif isinstance(item, exp.Subquery):
            if not alias:
                raise Unsupported("a subquery in FROM has no name")
            real = item.this.named_selects
            new = f"q{next(self._next)}"
        elif query := lateral_query(item):
            real = query.named_selects
            new = f"q{next(self._next)}"
        elif isinstance(item, exp.Table | exp.Lateral | exp.Unnest | exp.Values):
            real = given
            new = f"f{next(self._next)}"
        else:
            raise Unsupported(f"{type(item).__name__} in FROM is not understood yet")
        return Item(new, dict(zip(given + real[len(given) :], real, strict=True)))

    def _rename(self, item: exp.Expr, to: Item) -> None:
        alias = item.args.get("alias") or exp.TableAlias()
        alias.set("this", identifier(to.alias))
        if isinstance(item, exp.Subquery) or is_table(item) or lateral_query(item):
            alias.set("columns", None)
        else:
            alias.set("columns", [identifier(name) for name in to.columns])
        item.set("alias", alias)


def _name_outputs(query: exp.Query) -> None:
    for select in [query] if isinstance(query, exp.Select) else queries_in(query):
        if not isinstance(select, exp.Select):
            _name_outputs(select)
            continue
        for value in select.expressions:
            if not isinstance(value, exp.Alias):
                name = value.name if isinstance(value, exp.Column) else "?column?"
                value.replace(named(value.copy(), name))


def _key(table: exp.Table) -> tuple[str, str]:
    return table.db, table.name


def _resolve(node: exp.Column, scope: Scope, outer: Scope) -> None:
    if not node.table and len(scope) != 1:
        raise Unsupported(f"column {node.name} does not name its table")
    name = node.table or next(iter(scope))
    item = scope.get(name) or outer.get(name)
    if item is None or node.name not in item.columns:
        raise Unsupported(f"column {node.sql()} was not found")
    node.set("this", identifier(item.columns[node.name]))
    node.set("table", identifier(item.alias))


def _write_out_using(select: exp.Select, scope: Scope) -> None:
    clause = select.args.get("from_")
    if clause:
        merged: dict[str, exp.Expr] = {}
        _using(clause.this, select.args.get("joins") or [], scope, merged)
        for node in list(own(select)):
            if isinstance(node, exp.Column) and not node.table and node.name in merged:
                node.replace(merged[node.name].copy())


def _using(first: exp.Expr, joins: list[exp.Join], scope: Scope, merged: dict[str, exp.Expr]) -> list[str]:
    """Writes out USING in a chain of joins; the names of all that it joins. `merged` are the columns that are of both
    sides, without a table: those of FULL JOIN."""
    left = _using(first.this, [], scope, merged) if is_group(first) else [first.alias_or_name]
    for join in [*(first.args.get("joins") or []), *joins]:
        right = _using(join.this, [], scope, merged)
        using = join.args.get("using")
        if using:
            if join.side == "RIGHT":
                raise Unsupported("it has a RIGHT JOIN with USING")
            pairs = {each.name: [_one(side, each, scope, merged) for side in (left, right)] for each in using}
            equal = [exp.EQ(this=one.copy(), expression=other.copy()) for one, other in pairs.values()]
            join.set("on", exp.and_(*equal, copy=False))
            join.set("using", None)
            if join.side == "FULL":
                merged |= {name: exp.Coalesce(this=one, expressions=[other]) for name, (one, other) in pairs.items()}
        left += right
    return left


def _one(names: list[str], wanted: exp.Expr, scope: Scope, merged: dict[str, exp.Expr]) -> exp.Expr:
    """The column that USING means: of several that an earlier USING made one, the first, or what is not null."""
    both = merged.get(wanted.name)
    if both is not None and any(each.table in names for each in both.find_all(exp.Column)):
        return both.copy()
    owner = next((name for name in names if wanted.name in scope[name].columns), None)
    if owner is None:
        raise Unsupported(f"column {wanted.name} of USING was not found")
    return column(wanted.name, owner)
