"""Groups of a value that a subquery finds: the value as a column of a subquery in FROM, and groups of that column."""

from collections.abc import Callable, Iterator

from sqlglot import exp

from relay.stream_tables.apart import put_columns, same_text
from relay.stream_tables.shape import Shape
from relay.stream_tables.trees import QUERIES, column, groups, items, named, under


def group_columns(query: exp.Query, shape: Callable[[exp.Select], Shape], names: Iterator[str]) -> bool:
    """Writes each SELECT that groups by what has a subquery so that it groups by columns. Whether there are any."""
    found = [each for each in query.find_all(exp.Select) if any(value.find(*QUERIES) for value in groups(each))]
    for select in found:
        alias = next(names)
        values = _put_values(select, alias)
        # What follows from a key is grouped by too: of a subquery PostgreSQL does not know the key.
        more = dict.fromkeys(shape(select).following(select))
        select.set("group", exp.Group(expressions=[*groups(select), *(each.copy() for each in more)]))
        _put_under(select, values, alias)
    return bool(found)


def _put_values(select: exp.Select, alias: str) -> list[exp.Expr]:
    """Puts columns of `alias`, g0, g1 .., in the place of the values. Returns these."""
    values = dict.fromkeys(same_text(value) for value in groups(select) if value.find(*QUERIES))
    as_they_stand = [next(each.copy() for each in groups(select) if _is(each, value)) for value in values]
    for root in _parts(select):
        for node in list(root.walk(prune=lambda node: _place(node, values) is not None)):
            place = _place(node, values)
            if place is not None:
                node.replace(column(f"g{place}", alias))
    return as_they_stand


def _put_under(select: exp.Select, values: list[exp.Expr], alias: str) -> None:
    """Puts FROM and WHERE into a subquery, which shows the values."""
    inner = exp.Select()
    for clause in ("from_", "joins", "where"):
        inner.set(clause, select.args.get(clause))
        select.set(clause, None)
    shown = put_columns(select, {item.alias_or_name for item in items(inner)}, alias)
    made = [named(value, f"g{place}") for place, value in enumerate(values)]
    inner.set("expressions", [*made, *(named(value, f"c{place}") for place, value in enumerate(shown))])
    select.from_(under(inner, alias), copy=False)


def _parts(select: exp.Select) -> list[exp.Expr]:
    clauses = [select.args.get(name) for name in ("group", "having", "distinct", "order")]
    return [*select.expressions, *filter(None, clauses)]


def _place(node: exp.Expr, values: dict[exp.Expr, None]) -> int | None:
    """Which of the values it is: what it reads has other names in each place."""
    if isinstance(node, exp.Alias | exp.Paren) or not node.find(*QUERIES):
        return None
    return next((place for place, value in enumerate(values) if _is(node, value)), None)


def _is(node: exp.Expr, value: exp.Expr) -> bool:
    return type(node) is type(value) and same_text(node) == value
