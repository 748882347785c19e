"""INTERSECT and EXCEPT by counts: how often a row is on each side says how often it is in the result.

Rows of both sides are marked by their side, joined by UNION ALL, and grouped by what they hold. Equal rows are one
group, nulls too, as for the set operation itself.
"""

from collections.abc import Iterator

from sqlglot import exp

from relay.stream_tables.apart import give_names
from relay.stream_tables.plan import Unsupported
from relay.stream_tables.trees import QUERIES, bare, call, column, identifier, named, number, under, union_all

LEFT, RIGHT = 1, 2
SET_OPERATIONS = (exp.Except, exp.Intersect)


def both_sides(query: exp.SetOperation, names: Iterator[str]) -> exp.Query:
    """The rows of both sides; the last column says of which. Raises Unsupported."""
    if isinstance(query.expression, exp.SetOperation):
        raise Unsupported("it has set operations whose order is not written")
    return union_all([_marked(query.this, LEFT, next(names)), _marked(query.expression, RIGHT, next(names))])


def _marked(side: exp.Expr, mark: int, alias: str) -> exp.Select:
    query = side.unnest().copy()
    first = query
    while isinstance(first, exp.SetOperation):
        first = first.this.unnest()
    if not isinstance(query, QUERIES) or not isinstance(first, exp.Select):
        raise Unsupported("a side of a set operation is no SELECT")
    width = len(query.named_selects)
    give_names(first, [f"c{place}" for place in range(width)])
    shown = [named(column(f"c{place}", alias), f"c{place}") for place in range(width)]
    return exp.Select(expressions=[*shown, named(number(mark), f"c{width}")]).from_(under(query, alias))


def counted(query: exp.SetOperation, rows: exp.Select) -> exp.Select:
    """The rows of the result, each once; with ALL, also how often. `rows` are those of both sides."""
    *shown, mark = rows.expressions
    left, right = (_count(mark, side) for side in (LEFT, RIGHT))
    none = exp.Literal.number(0)
    if isinstance(query, exp.Intersect):
        found = exp.and_(exp.GT(this=left, expression=none), exp.GT(this=right, expression=none), copy=True)
        times: exp.Expr = call("LEAST", left, right)
    elif query.args.get("distinct"):
        found = exp.and_(exp.GT(this=left, expression=none), exp.EQ(this=right, expression=none), copy=True)
        times = number(1)
    else:
        found = exp.GT(this=left, expression=right)
        times = exp.Sub(this=left.copy(), expression=right.copy())
    rows.set("expressions", shown if query.args.get("distinct") else [*shown, named(times.copy(), mark.alias)])
    rows.group_by(*(bare(each).copy() for each in shown), copy=False)
    rows.set("having", exp.Having(this=found))
    return rows


def repeated(rows: exp.Select, alias: str) -> exp.Select:
    """The rows, each as often as its last column says."""
    *shown, times = rows.expressions
    rows.set("expressions", shown)
    series = call("generate_series", number(1), bare(times).copy())
    numbers = exp.Lateral(this=series, alias=exp.TableAlias(this=identifier(alias), columns=[identifier("g")]))
    return rows.join(numbers, join_type="cross", copy=False)


def _count(mark: exp.Expr, side: int) -> exp.Filter:
    found = exp.EQ(this=bare(mark).copy(), expression=number(side))
    return exp.Filter(this=exp.Count(this=exp.Star()), expression=exp.Where(this=found))
