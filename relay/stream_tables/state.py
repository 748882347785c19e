"""The state of a grouped query: what is kept for each group, so that changes can be added to it.

Counts, and exact sums of integers and numerics, can be added to. From them and the columns of the group each row of
the result is computed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlglot import exp

from relay.stream_tables.dialect import write
from relay.stream_tables.forms import digits, digits_but_zero, shows_form, shows_form_of_zero
from relay.stream_tables.plan import Column, Field, Read, Unsupported
from relay.stream_tables.shape import Shape, has_windows
from relay.stream_tables.trees import (
    QUERIES,
    also_where,
    bare,
    column,
    distinct_on,
    groups,
    named,
    our_table,
    own,
    under,
)  # fmt: skip
from relay.stream_tables.types import INTEGERS, base, one_form

SUMMED = (*INTEGERS, "numeric")
ROW, STATE = "r", "s"
"""Names of the rows before they are grouped, and of the state."""


@dataclass(frozen=True)
class Argument:
    """What an aggregate counts or sums; null where its FILTER fails."""

    kind: str
    value: exp.Expr


class State:
    """The state of one SELECT. Raises Unsupported if its aggregates cannot be kept."""

    def __init__(self, shape: Shape, read: Callable[[exp.Query], Read]) -> None:
        self._shape = shape
        self._select = shape.select
        self._refuse()
        on = distinct_on(self._select)
        having = self._select.args.get("having")
        shown = [*self._select.expressions, *([having.this] if having else [])]
        self.groups = list(dict.fromkeys(map(bare, self._select.expressions) if on == [] else groups(self._select)))
        if self.groups:
            self.groups += dict.fromkeys(each for value in shown for each in self._following(value))
        self._arguments: dict[tuple[str, str, str], Argument] = {}
        for aggregate in shape.aggregates(self._select):
            self._keep(aggregate)
        self._types = self._read_types(read)
        self.fields = tuple(self._field(name, kind) for name, kind in enumerate(self._arguments.values()))
        self._refuse_forms(shown)
        self._outputs = [named(self._over_state(bare(each)), each.alias) for each in self._select.expressions]
        self._having = self._over_state(having.this) if having else None

    def _refuse(self) -> None:
        select, on = self._select, distinct_on(self._select)
        if on or has_windows(select):
            raise Unsupported("it has windows or DISTINCT ON")
        if on == [] and self._shape.is_grouped(select):
            raise Unsupported("it has DISTINCT over groups")
        if self._shape.multiplies(select):
            raise Unsupported("a function makes several rows of one")

    def _keep(self, aggregate: exp.Expr) -> None:
        if not isinstance(aggregate, exp.Count | exp.Sum | exp.Avg):
            raise Unsupported(f"changes cannot be added to {_name(aggregate)}")
        if aggregate.expressions or isinstance(aggregate.this, exp.Distinct | exp.Order):
            raise Unsupported(f"changes cannot be added to {_name(aggregate)} of distinct or sorted values")
        condition = _filter(aggregate)
        value = exp.Literal.number(1) if isinstance(aggregate.this, exp.Star) else aggregate.this.copy()
        if condition is not None:
            value = exp.Case(ifs=[exp.If(this=condition.copy(), true=value)])
        elif isinstance(aggregate.this, exp.Star):
            return
        kind = "count" if isinstance(aggregate, exp.Count) else "sum"
        self._arguments.setdefault(_key(aggregate), Argument(kind, value))

    def _following(self, value: exp.Expr) -> list[exp.Column]:
        """Columns that follow from the key of a group: they are of it, though it is not grouped by them."""
        stop = (*QUERIES, exp.Filter)
        nodes = value.walk(
            prune=lambda node: isinstance(node, stop) or node in self.groups or self._shape.is_aggregate(node)
        )
        return [node for node in nodes if isinstance(node, exp.Column) and node not in self.groups]

    def _read_types(self, read: Callable[[exp.Query], Read]) -> dict[str, Column]:
        return {each.name: each for each in read(self.rows()).columns}

    def _field(self, number: int, argument: Argument) -> Field:
        kind = base(self._types[f"a{number}"].type)
        if argument.kind == "sum" and kind not in SUMMED:
            raise Unsupported(f"sums of {kind} are not exact")
        return Field("sum" if argument.kind == "sum" else "count", kind)

    def _refuse_forms(self, shown: list[exp.Expr]) -> None:
        """Sums and groups are equal to those of the query, but those of numerics may have more zeros at the end."""
        for number, group in enumerate(self.groups):
            kept = self._types[f"k{number}"]
            if not kept.hashable:
                raise Unsupported(f"it groups by a {kept.type}, which has no hash")
            if not one_form(kept) and any(
                node == group and shows_form(node, self._select, numeric=base(kept.type) == "numeric")
                for value in shown
                for node in own(value)
            ):
                raise Unsupported(f"it shows the form of a {kept.type} by which it groups")
        for aggregate in self._shape.aggregates(self._select):
            if self._type(aggregate) != "numeric" or digits(self._shape, aggregate.this) is not None:
                continue
            place = aggregate.parent if isinstance(aggregate.parent, exp.Filter) else aggregate
            if digits_but_zero(self._shape, aggregate.this) is not None and isinstance(aggregate, exp.Sum):
                seen = shows_form_of_zero(place, self._select)
            else:
                seen = isinstance(aggregate, exp.Avg) or shows_form(place, self._select, numeric=True)
            if seen:
                raise Unsupported("the digits of a quotient depend on numerics whose scale is not declared")

    def _type(self, aggregate: exp.Expr) -> str | None:
        """Of the argument of a sum or an average."""
        if isinstance(aggregate, exp.Count):
            return None
        return self.fields[list(self._arguments).index(_key(aggregate))].type

    def _over_state(self, value: exp.Expr) -> exp.Expr:
        """The same over the columns of the state."""
        over = exp.Paren(this=value.copy()).transform(self._column_for)
        if over.find(*QUERIES):
            raise Unsupported("it has a subquery beside aggregates")
        return over

    def _column_for(self, node: exp.Expr) -> exp.Expr:
        if node in self.groups:
            return column(f"k{self.groups.index(node)}", STATE)
        if isinstance(node, exp.Filter):
            return self._value_of(node.this)
        return self._value_of(node) if self._shape.is_aggregate(node) else node

    def _value_of(self, aggregate: exp.Expr) -> exp.Expr:
        if _key(aggregate) not in self._arguments:
            return column("n", STATE)
        number = list(self._arguments).index(_key(aggregate))
        counted, summed = column(f"c{number}", STATE), column(f"s{number}", STATE)
        if isinstance(aggregate, exp.Count):
            return counted
        whole = isinstance(aggregate, exp.Sum) and self._type(aggregate) in {"smallint", "integer"}
        value = (
            exp.Div(this=summed, expression=counted.copy(), typed=True) if isinstance(aggregate, exp.Avg) else summed
        )
        some = exp.GT(this=counted, expression=exp.Literal.number(0))
        return exp.cast(exp.Case(ifs=[exp.If(this=some, true=value)]), "bigint" if whole else "numeric")

    def rows(self) -> exp.Select:
        """The rows before they are grouped: `k0..` and `a0..`."""
        rows = self._select.copy()
        for clause in ("group", "having", "distinct", "order"):
            rows.set(clause, None)
        keys = [named(each.copy(), f"k{number}") for number, each in enumerate(self.groups)]
        values = [named(each.value.copy(), f"a{number}") for number, each in enumerate(self._arguments.values())]
        rows.set("expressions", [*keys, *values] or [named(exp.Literal.number(1), "one")])
        return rows

    def whole(self) -> exp.Select:
        """The state as it is computed from the tables."""
        values = [named(exp.Count(this=exp.Star()), "n")]
        for number, field in enumerate(self.fields):
            argument = column(f"a{number}", ROW)
            values.append(named(exp.Count(this=argument), f"c{number}"))
            if field.kind == "sum":
                values.append(named(_zero(exp.Sum(this=exp.cast(argument.copy(), "numeric"))), f"s{number}"))
        return self._by_group(self.rows(), values)

    def change(self, rows: exp.Query) -> exp.Select:
        """The change of the state that these rows make, each with its `__w`."""
        weight = column("__w", ROW)
        values = [named(exp.cast(_zero(exp.Sum(this=weight)), "bigint"), "n")]
        for number, field in enumerate(self.fields):
            argument = column(f"a{number}", ROW)
            given = exp.Where(this=exp.Not(this=exp.Is(this=argument, expression=exp.Null())))
            counted = exp.Filter(this=exp.Sum(this=weight.copy()), expression=given)
            values.append(named(exp.cast(_zero(counted), "bigint"), f"c{number}"))
            if field.kind == "sum":
                product = exp.Mul(this=exp.cast(argument.copy(), "numeric"), expression=weight.copy())
                values.append(named(_zero(exp.Sum(this=product)), f"s{number}"))
        return self._by_group(rows, values)

    def _by_group(self, rows: exp.Query, values: list[exp.Alias]) -> exp.Select:
        keys = [column(f"k{number}", ROW) for number in range(len(self.groups))]
        select = exp.Select(expressions=[*keys, *values]).from_(under(rows, ROW))
        return select.group_by(*(each.copy() for each in keys), copy=False) if keys else select

    def out(self, stream_id: int) -> exp.Select:
        """The rows of the result, from the state."""
        select = exp.Select(expressions=self._outputs).from_(our_table(f"s_{stream_id}", STATE))
        return also_where(select, self._having) if self._having else select


def _filter(aggregate: exp.Expr) -> exp.Expr | None:
    parent = aggregate.parent
    return parent.expression.this if isinstance(parent, exp.Filter) else None


def _key(aggregate: exp.Expr) -> tuple[str, str, str]:
    condition = _filter(aggregate)
    kind = "count" if isinstance(aggregate, exp.Count) else "sum"
    return kind, write(aggregate.this), write(condition) if condition is not None else ""


def _zero(value: exp.Expr) -> exp.Coalesce:
    return exp.Coalesce(this=value, expressions=[exp.Literal.number(0)])


def _name(aggregate: exp.Expr) -> str:
    return f"{aggregate.name if isinstance(aggregate, exp.Anonymous) else aggregate.key}()"
