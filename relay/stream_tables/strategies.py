"""For one SELECT and a set of changed tables: how what differs is found. The first that is proven is taken."""

from dataclasses import dataclass, replace
from functools import cached_property

from sqlglot import exp

from relay.stream_tables.classes import EqualClass, classes, output_of
from relay.stream_tables.delta import VALUES, affected, linear, of_values, restricted, weighted, with_values
from relay.stream_tables.dialect import parse_table, write
from relay.stream_tables.extremes import arguments, extremes, net, now
from relay.stream_tables.keys import unique_key
from relay.stream_tables.plan import Change, Described, Strategy, Unsupported
from relay.stream_tables.shape import Instance, Shape, has_windows, is_plain
from relay.stream_tables.state import State
from relay.stream_tables.steady import unsteady
from relay.stream_tables.trees import (
    QUERIES,
    also_where,
    bare,
    column,
    distinct_on,
    identifier,
    named,
    number,
    row_hash,
    under,
    union_all,
)  # fmt: skip

MOST_INSTANCES = 4
"""Of one SELECT, read where a table changed: each more doubles the terms of a linear change."""

Changed = frozenset[int]


@dataclass(frozen=True)
class Signed:
    """Rows with weights, and the WITH that they read. One arm of a UNION ALL has one."""

    strategy: Strategy
    rows: list[exp.Query]
    values: exp.With | None = None


class Select:
    """One SELECT of a query, whose rows can be found changed."""

    def __init__(self, shape: Shape, described: Described, exact: dict[int, set[str]]) -> None:
        self.shape = shape
        self._described = described
        self._exact = exact

    @cached_property
    def key(self) -> tuple[str, ...] | None:
        return unique_key(self.shape, self.shape.select)

    @cached_property
    def _unsteady(self) -> list[frozenset[str]]:
        return unsteady(self.shape)

    @cached_property
    def _classes(self) -> list[EqualClass]:
        return classes(self.shape)

    def changed(self, sources: Changed) -> list[Instance]:
        return [each for each in self.shape.instances.values() if each.source.oid in sources]

    def is_linear(self, sources: Changed) -> bool:
        """Whether all that changed is joined, so that each row of FROM has one row of it."""
        instances = self.changed(sources)
        return len(instances) <= MOST_INSTANCES and all(each.top for each in instances) and not self._unsteady

    def signed(self, rows: exp.Select, sources: Changed) -> Signed:
        """The change of these rows, which are made one by one. Raises Unsupported."""
        if self.is_linear(sources):
            return Signed("linear", list(linear(rows, self.changed(sources))))
        found = next((each for each in self._classes if self._covers(each, sources)), None)
        if found is None or self._unsteady:
            raise Unsupported(self.why_not(sources))
        for instance in self.changed(sources):
            if instance.source.key is None and self._exact.get(instance.source.oid):
                raise Unsupported(f"{instance.source.name} has no key, and equal values of it are shown differently")
        new = weighted(restricted(rows, self.shape, found), number(1))
        old = weighted(restricted(rows, self.shape, found, past=sources), number(-1))
        return Signed("two states", [new, old], affected(self.shape, found, self.changed(sources)))

    def keyed(self, sources: Changed) -> Change | None:
        """The result for the affected values, and the stored rows with them."""
        for found in self._classes:
            output = output_of(self.shape, found) if self._covers(found, sources) else None
            if output:
                made = restricted(self.shape.select, self.shape, found)
                stored = of_values(self._stored(), column(output, "t"), nulls=found.nulls)
                values = affected(self.shape, found, self.changed(sources))
                return text_of(Signed("keyed", [self._made(made), *stored], values))
        return None

    def output_columns(self, sources: Changed) -> tuple[str, ...] | None:
        """By which column of the table `keyed` finds stored rows."""
        outputs = (output_of(self.shape, found) for found in self._classes if self._covers(found, sources))
        return next(((output,) for output in outputs if output), None)

    def by_groups(self, sources: Changed) -> Change | None:
        """The groups of which a row changed are made again."""
        select = self.shape.select
        key = self.key
        on_rows = distinct_on(select) is None and not has_windows(select) and bool(select.args.get("group"))
        if not (on_rows and key and self.is_linear(sources)):
            return None
        values = {each.alias: bare(each) for each in select.expressions}
        if any(values[name].find(*QUERIES) for name in key):
            return None
        rows = select.copy()
        for clause in ("group", "having", "order"):
            rows.set(clause, None)
        rows.set("expressions", [named(values[name].copy(), f"k{place}") for place, name in enumerate(key)])
        terms = union_all(list(linear(rows, self.changed(sources))))
        keys = [column(f"k{place}", "r") for place in range(len(key))]
        found = with_values(exp.Select(expressions=keys).from_(under(terms, "r")).distinct(copy=False))
        made = also_where(select.copy(), _has_group([values[name] for name in key]))
        self._hint(made, [values[name] for name in key])
        stored = also_where(self._stored(), _has_group([column(name, "t") for name in key]))
        return text_of(Signed("groups", [self._made(made), stored], found))

    def by_extremes(self, sources: Changed) -> Change | None:
        """The least and the greatest of all rows."""
        found = extremes(self.shape)
        if found is None or not self.is_linear(sources):
            return None
        terms = linear(arguments(self.shape.select, found), self.changed(sources))
        stored = self._stored()
        row = now(self.shape.select, found, [each.name for each in self._described.columns], stored)
        return text_of(Signed("groups", [row, stored], with_values(net(list(terms), len(found)))))

    def _hint(self, made: exp.Select, values: list[exp.Expr]) -> None:
        """A column that is never null is compared by itself too: it may have an index."""
        for place, value in enumerate(values):
            if not isinstance(value, exp.Column) or value.table not in self.shape.instances:
                continue
            if self.shape.instances[value.table].top and self.shape.column((value.table, value.name)).not_null:
                keys = exp.Select(expressions=[column(f"k{place}", VALUES)]).from_(exp.Table(this=identifier(VALUES)))
                also_where(made, exp.In(this=value.copy(), query=exp.Subquery(this=keys)))

    def _covers(self, found: EqualClass, sources: Changed) -> bool:
        """Whether a value's part of the result depends on what changed by the rows with that value alone.

        Of a subquery with several answers, all tables have to follow the value: it has an answer for each value.
        """
        needed = {each.alias for each in self.changed(sources)}.union(*self._unsteady)
        return needed <= set(found.members)

    def _made(self, select: exp.Select) -> exp.Select:
        names = [column(each.name, "n") for each in self._described.columns]
        return weighted(exp.Select(expressions=names).from_(under(select, "n")), number(1))

    def _stored(self) -> exp.Select:
        """The rows of the stream table, to be taken away."""
        table = parse_table(self._described.table)
        table.set("alias", exp.TableAlias(this=identifier("t")))
        names = [column(each.name, "t") for each in self._described.columns]
        return weighted(exp.Select(expressions=names).from_(table), number(-1))

    def why_not_linear(self, sources: Changed) -> str:
        """Why the rows of these sources are not simply followed, to a person."""
        hidden = dict.fromkeys(each.source.name for each in self.changed(sources) if not each.top)
        if hidden and not self._unsteady:
            return f"{', '.join(hidden)} is read in a subquery or an outer join"
        if not self.is_linear(sources):
            return self.why_not(sources)
        return "rows of the result are made of many rows of its sources"

    def why_not(self, sources: Changed) -> str:
        """Why a set of changed sources has no strategy, to a person."""
        instances = self.changed(sources)
        if self._unsteady:
            return "it has a subquery with more than one right answer, such as LIMIT without a total order"
        hidden = [each for each in instances if not each.top]
        if not hidden and len(instances) > MOST_INSTANCES:
            return f"tables that changed are read {len(instances)} times: {MOST_INSTANCES} at most"
        names = ", ".join(dict.fromkeys(each.source.name for each in hidden or instances))
        if hidden:
            return f"{names} is read in a subquery or an outer join, and no column joins all of it to a column outside"
        return f"its result depends on all rows of {names} at once"


def text_of(signed: Signed) -> Change:
    """Changes of rows as a statement."""
    query = union_all(signed.rows)
    query.set("with_", signed.values)
    return Change(signed.strategy, "rows", write(query))


def rows_change(select: Select, sources: Changed) -> Change:
    """The change of a SELECT whose rows are kept as they are. Raises Unsupported."""
    plain = is_plain(select.shape.select, select.shape)
    if plain and select.is_linear(sources):
        return text_of(select.signed(select.shape.select, sources))
    change = select.keyed(sources) or select.by_groups(sources) or select.by_extremes(sources)
    if change is None and plain:
        change = text_of(select.signed(select.shape.select, sources))
    if change is None:
        raise Unsupported(select.why_not(sources))
    return replace(change, reason=select.why_not_linear(sources))


def state_change(select: Select, state: State, sources: Changed) -> Change:
    """The change of the state of a grouped SELECT. Raises Unsupported."""
    signed = select.signed(state.rows(), sources)
    query = state.change(union_all(signed.rows))
    query.set("with_", signed.values)
    reason = None if signed.strategy == "linear" else select.why_not_linear(sources)
    return Change(signed.strategy, "state", write(query), reason)


def _has_group(values: list[exp.Expr]) -> exp.In:
    keys = [column(f"k{place}", VALUES) for place in range(len(values))]
    hashes = exp.Select(expressions=[row_hash(keys)]).from_(exp.Table(this=identifier(VALUES)))
    return exp.In(this=row_hash(value.copy() for value in values), query=exp.Subquery(this=hashes))
