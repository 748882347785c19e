"""NOT IN where a null is possible, as what can be followed.

`x NOT IN (SELECT y FROM s)` is true if `s` is empty, or if `x` is not null, no `y` is null and none is equal to `x`.
Whether `s` is empty and whether it has a null is one row, which rarely changes; what is equal to `x` is found by `x`.
"""

from collections.abc import Callable, Iterator

from sqlglot import exp

from relay.stream_tables.apart import aliases, is_correlated, rename
from relay.stream_tables.query import is_cut
from relay.stream_tables.shape import Shape, has_windows
from relay.stream_tables.trees import (
    QUERIES,
    also_where,
    bare,
    column,
    distinct_on,
    named,
    number,
    under,
    where,
)  # fmt: skip


def split_not_in(query: exp.Query, shape: Callable[[exp.Select], Shape], names: Iterator[str]) -> dict[str, str]:
    """Writes each NOT IN so that is a condition of WHERE by itself. Returns new names of what is read twice then, with
    the old ones. Of a condition inside another one null and false differ: that stays as it is."""
    renamed: dict[str, str] = {}
    for select in list(query.find_all(exp.Select)):
        for condition in where(select):
            inside = bare(condition.this) if isinstance(condition, exp.Not) else None
            if isinstance(inside, exp.In) and select.args.get("from_") and _is_splittable(inside, shape(select)):
                renamed |= _split(select, condition, inside, names)
    return renamed


def _is_splittable(value: exp.In, shape: Shape) -> bool:
    """Whether it is not followed as it stands, and each row of the subquery is of rows of its FROM."""
    query = _query(value)
    return (
        isinstance(query, exp.Select)
        and isinstance(bare(value.this), exp.Column | exp.Cast)
        and not value.this.find(*QUERIES)
        and len(query.expressions) == 1
        and bool(query.args.get("from_"))
        and not is_cut(query)
        and distinct_on(query) in (None, [])
        and not shape.is_grouped(query)
        and not has_windows(query)
        and not shape.multiplies(query)
        and not is_correlated(query)
        and not shape.is_followed(value, negated=True)
    )


def _query(value: exp.In) -> exp.Expr | None:
    query = value.args.get("query")
    return query.this if isinstance(query, exp.Subquery) else query


def _split(select: exp.Select, condition: exp.Expr, value: exp.In, names: Iterator[str]) -> dict[str, str]:
    alias = next(names)
    partner = _query(value)
    assert isinstance(partner, exp.Select)
    partner = partner.copy()
    for clause in ("distinct", "order"):
        partner.set(clause, None)
    found, facts = bare(partner.expressions[0]), partner.copy()
    null = exp.Where(this=exp.Is(this=found.copy(), expression=exp.Null()))
    nulls = exp.Filter(this=exp.Count(this=exp.Star()), expression=null)
    facts.set("expressions", [named(_some(exp.Count(this=exp.Star())), "c0"), named(_some(nulls), "c1")])
    to = {old: next(names) for old in aliases(facts)}
    select.join(under(rename(facts, to), alias), join_type="cross", copy=False)
    also_where(partner, exp.EQ(this=value.this.copy(), expression=found.copy()))
    partner.set("expressions", [named(exp.Literal.number(1), "c0")])
    given = exp.Not(this=exp.Is(this=value.this.copy(), expression=exp.Null()))
    none = exp.Not(this=exp.Exists(this=partner))
    alone = exp.and_(given, exp.Not(this=column("c1", alias)), none, copy=False)
    condition.replace(exp.Paren(this=exp.or_(exp.Not(this=column("c0", alias)), alone, copy=False)))
    return {new: old for old, new in to.items()}


def _some(count: exp.Expr) -> exp.GT:
    return exp.GT(this=count, expression=number(0))
