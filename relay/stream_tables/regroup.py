"""Grouped queries that no strategy follows, taken apart into queries in FROM that some follows."""

from collections.abc import Callable, Iterator

from sqlglot import exp

from relay.stream_tables.apart import aliases, put, rename, whole_call
from relay.stream_tables.shape import Shape, has_windows
from relay.stream_tables.trees import QUERIES, also_where, bare, column, groups, named, under


def regroup(select: exp.Select, shape: Callable[[exp.Select], Shape], names: Iterator[str]) -> dict[str, str]:
    """Takes it apart if it is one of them. Returns new names of what is read more than once then, with the old ones."""
    renamed = _by_kinds(select, shape(select), names)
    _distinct_first(select, shape(select), next(names))
    _split(select, shape(select), next(names))
    return renamed


def _split(select: exp.Select, shape: Shape, alias: str) -> None:
    """Of a SELECT that makes more of its groups than rows (DISTINCT, windows, subqueries), the groups as a subquery."""
    clause = select.args.get("having")
    shown = [*select.expressions, *([clause] if clause else [])]
    known = [*groups(select), *(whole_call(each) for each in shape.aggregates(select))]
    rest = [node for value in shown for node in value.walk(prune=lambda node: bare(node) in known) if node not in known]
    more = select.args.get("distinct") or has_windows(select) or any(isinstance(node, QUERIES) for node in rest)
    if not shape.is_grouped(select) or not more:
        return
    values = dict.fromkeys([*known, *shape.following(select)])
    inner = select.copy()
    for name in ("having", "distinct", "order", "limit", "offset"):
        inner.set(name, None)
    inner.set("expressions", [named(value.copy(), f"c{place}") for place, value in enumerate(values)])
    places = {value: column(f"c{place}", alias) for place, value in enumerate(values)}
    for name in ("expressions", "having", "distinct", "order"):
        part = select.args.get(name)
        for root in part if isinstance(part, list) else [part] if part else []:
            put(root, places)
    for name in ("joins", "where", "group", "having"):
        select.set(name, None)
    select.from_(under(inner, alias), copy=False)
    if clause:
        also_where(select, clause.this)


def _distinct_first(select: exp.Select, shape: Shape, alias: str) -> None:
    """Aggregates of the distinct values of one expression: aggregates of rows that are distinct."""
    found = shape.aggregates(select)
    values = {tuple(each.this.expressions) for each in found if isinstance(each.this, exp.Distinct)}
    plain = [
        each for each in found if isinstance(each, exp.Count | exp.Sum | exp.Avg) and not each.args.get("expressions")
    ]
    if groups(select) or len(values) != 1 or not all(isinstance(each.this, exp.Distinct) for each in plain):
        return
    [(value, *others)] = values
    if others or len(plain) != len(found) or any(isinstance(each.parent, exp.Filter) for each in found):
        return
    inner = select.copy()
    inner.set("having", None)
    inner.set("expressions", [named(value.copy(), "c0")])
    inner.set("distinct", exp.Distinct())
    for each in found:
        each.set("this", column("c0", alias))
    for name in ("joins", "where"):
        select.set(name, None)
    select.from_(under(inner, alias), copy=False)


def _by_kinds(select: exp.Select, shape: Shape, names: Iterator[str]) -> dict[str, str]:
    """Of one row for all rows, what is found in different ways: sums, the least and the greatest, what is distinct."""
    kinds: dict[str, dict[exp.Expr, None]] = {}
    for each in shape.aggregates(select):
        kinds.setdefault(_kind(each), {})[whole_call(each)] = None
    if groups(select) or select.args.get("distinct") or has_windows(select) or len(kinds) < 2:
        return {}
    places: dict[exp.Expr, exp.Column] = {}
    renamed: dict[str, str] = {}
    inner = []
    for values in kinds.values():
        alias, query = next(names), select.copy()
        for name in ("having", "order"):
            query.set(name, None)
        query.set("expressions", [named(value.copy(), f"c{place}") for place, value in enumerate(values)])
        places |= {value: column(f"c{place}", alias) for place, value in enumerate(values)}
        to = {old: next(names) for old in aliases(query)}
        renamed |= {new: old for old, new in to.items()}
        inner.append(under(rename(query, to), alias))
    clause = select.args.get("having")
    for root in [*select.expressions, *([clause] if clause else [])]:
        put(root, places)
    for name in ("joins", "where", "having"):
        select.set(name, None)
    select.from_(inner[0], copy=False)
    for each in inner[1:]:
        select.join(each, join_type="cross", copy=False)
    if clause:
        also_where(select, clause.this)
    return renamed


def _kind(aggregate: exp.Expr) -> str:
    if isinstance(aggregate.this, exp.Distinct):
        return f"distinct {aggregate.this.sql()}"
    return "extremes" if isinstance(aggregate, exp.Min | exp.Max) else "sums"
