"""Queries written so that their parts stand in FROM, where they can be nodes. What they say stays the same."""

from collections.abc import Iterator
from typing import TypeVar

from sqlglot import exp

from relay.stream_tables.plan import Unsupported
from relay.stream_tables.query import is_cut
from relay.stream_tables.shape import Shape, has_windows
from relay.stream_tables.trees import (
    QUERIES,
    bare,
    column,
    named,
    own,
    under,
)  # fmt: skip

Tree = TypeVar("Tree", bound=exp.Expr)


def leaves(query: exp.Query) -> list[exp.Query]:
    """What UNION ALL joins, or the one query that it is."""
    inner = query.this if isinstance(query, exp.Subquery) else query
    if isinstance(inner, exp.Union) and not inner.args.get("distinct") and not is_cut(inner):
        return leaves(inner.left) + leaves(inner.right)
    return [inner] if isinstance(inner, QUERIES) else [query]


def is_correlated(query: exp.Query) -> bool:
    """Whether it reads a column of what is around it."""
    mine = {each.alias for each in query.find_all(exp.Table, exp.Subquery, exp.Lateral, exp.Unnest, exp.Values)}
    return any(each.table not in mine for each in query.find_all(exp.Column))


def whole_call(aggregate: exp.Expr) -> exp.Expr:
    parent = aggregate.parent
    return whole_call(parent) if isinstance(parent, exp.Filter | exp.WithinGroup) else aggregate


def put(root: exp.Expr, places: dict[exp.Expr, exp.Column]) -> None:
    """A count inside a subquery is another one, but a column there may be of a group."""
    outside = {id(node) for node in own(root)}

    def is_one(node: exp.Expr) -> bool:
        return node in places and (id(node) in outside or node.find(exp.Column) is not None)

    for node in list(root.walk(prune=is_one)):
        if is_one(node):
            node.replace(places[node].copy())


def join_scalars(select: exp.Select, shape: Shape, names: Iterator[str]) -> None:
    """Subqueries that are one value, whatever the row, as one more table in FROM: it has one row."""
    clause = select.args.get("where")
    if not select.args.get("from_"):
        return
    for root in [*select.expressions, *([clause] if clause else [])]:
        for node in list(own(root)):
            if isinstance(node, exp.Subquery) and _is_one_value(node, shape):
                alias, query = next(names), node.this.copy()
                values = list(dict.fromkeys(whole_call(each) for each in shape.aggregates(query)))
                shown = exp.Paren(this=bare(query.expressions[0]).copy())
                put(shown, {value: column(f"c{place}", alias) for place, value in enumerate(values)})
                query.set("expressions", [named(each.copy(), f"c{place}") for place, each in enumerate(values)])
                select.join(under(query, alias), join_type="cross", copy=False)
                node.replace(shown)


def _is_one_value(node: exp.Subquery, shape: Shape) -> bool:
    query = node.this
    return (
        isinstance(query, exp.Select)
        and not node.alias
        and not isinstance(node.parent, exp.In | exp.Any | exp.Exists | exp.From | exp.Join)
        and len(query.expressions) == 1
        and not any(query.args.get(name) for name in ("group", "having", "distinct"))
        and not is_cut(query)
        and bool(shape.aggregates(query))
        and not has_windows(query)
        and not shape.multiplies(query)
        and not is_correlated(query)
    )


def same_text(query: Tree) -> Tree:
    """The tree with names that depend on nothing else: equal ones are one."""
    return rename(query.copy(), {alias: f"a{place}" for place, alias in enumerate(aliases(query))})


def aliases(query: exp.Expr) -> list[str]:
    """The names of all that it reads, wherever in it."""
    tables = query.find_all(exp.Table, exp.Subquery, exp.Lateral, exp.Unnest, exp.Values)
    return list(dict.fromkeys(each.alias for each in tables if each.alias))


def rename(query: Tree, names: dict[str, str]) -> Tree:
    """The same query, in which they have these names."""
    for node in query.walk():
        if isinstance(node, exp.Column) and node.table in names:
            node.set("table", exp.to_identifier(names[node.table], quoted=True))
        elif isinstance(node, exp.TableAlias) and node.name in names:
            node.set("this", exp.to_identifier(names[node.name], quoted=True))
    return query


def give_names(select: exp.Select, names: list[str]) -> None:
    values = [named(bare(value).copy(), name) for value, name in zip(select.expressions, names, strict=False)]
    select.set("expressions", values + select.expressions[len(names) :])


def sorted_by(query: exp.Query, ordered: exp.Expr) -> int:
    """Which column of a query ORDER BY sorts by; one more is added if none does."""
    value = bare(ordered.this)
    if isinstance(value, exp.Literal) and value.is_int:
        return int(value.name) - 1
    if not isinstance(query, exp.Select):
        raise Unsupported("it sorts UNION ALL by an expression")
    found = next((place for place, each in enumerate(query.expressions) if bare(each) == value), None)
    if found is not None:
        return found
    if query.args.get("distinct"):
        raise Unsupported("it sorts distinct rows by what it does not show")
    query.append("expressions", named(value.copy(), f"c{len(query.expressions)}"))
    return len(query.expressions) - 1


def in_place_of(table: exp.Table, body: exp.Query) -> exp.Subquery:
    """What a table holds as a subquery, for the place where it is read."""
    subquery = under(body, table.alias)
    subquery.set("joins", table.args.get("joins"))
    return subquery


def put_columns(select: exp.Select, moved: set[str], alias: str) -> list[exp.Expr]:
    """What is read of what is moved, each once: it becomes a column of `alias`, c0, c1 .. So does what USING joins."""
    shown: dict[exp.Expr, exp.Column] = {}
    found: list[exp.Expr] = [each for each in select.find_all(exp.Coalesce) if _is_merged(each, moved)]
    found += [each for each in select.find_all(exp.Column) if each.table in moved]
    for each in found:
        put = shown.setdefault(each.copy(), column(f"c{len(shown)}", alias))
        if each.find_ancestor(exp.Select):  # A part of one that was put before is no longer in the query.
            each.replace(put.copy())
    return list(shown)


def _is_merged(value: exp.Coalesce, moved: set[str]) -> bool:
    values = [bare(each) for each in (value.this, *value.expressions)]
    return all(isinstance(each, exp.Column) and each.table in moved for each in values)
