"""Queries written so that their parts stand in FROM, where they can be nodes. What they say stays the same."""

from collections.abc import Iterator

from sqlglot import exp

from relay.stream_tables.plan import Unsupported
from relay.stream_tables.query import is_cut
from relay.stream_tables.shape import Shape, has_windows
from relay.stream_tables.trees import (
    QUERIES,
    also_where,
    bare,
    column,
    groups,
    named,
    own,
    under,
)  # fmt: skip


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


def split(select: exp.Select, shape: Shape, alias: str) -> None:
    """Of a SELECT that makes more of its groups than rows (DISTINCT, windows, subqueries), the groups as a subquery."""
    clause = select.args.get("having")
    shown = [*select.expressions, *([clause] if clause else [])]
    known = [*groups(select), *(_whole_call(each) for each in shape.aggregates(select))]
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
            _put(root, places)
    for name in ("joins", "where", "group", "having"):
        select.set(name, None)
    select.from_(under(inner, alias), copy=False)
    if clause:
        also_where(select, clause.this)


def distinct_first(select: exp.Select, shape: Shape, alias: str) -> None:
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


def _whole_call(aggregate: exp.Expr) -> exp.Expr:
    parent = aggregate.parent
    return _whole_call(parent) if isinstance(parent, exp.Filter | exp.WithinGroup) else aggregate


def _put(root: exp.Expr, places: dict[exp.Expr, exp.Column]) -> None:
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
                values = list(dict.fromkeys(_whole_call(each) for each in shape.aggregates(query)))
                shown = exp.Paren(this=bare(query.expressions[0]).copy())
                _put(shown, {value: column(f"c{place}", alias) for place, value in enumerate(values)})
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


def same_text(query: exp.Query) -> exp.Query:
    """The query with names that depend on nothing else: equal ones are one."""
    tree = query.copy()
    tables = tree.find_all(exp.Table, exp.Subquery, exp.Lateral, exp.Unnest, exp.Values)
    names = {
        alias: f"a{place}" for place, alias in enumerate(dict.fromkeys(each.alias for each in tables if each.alias))
    }
    for node in tree.walk():
        if isinstance(node, exp.Column) and node.table in names:
            node.set("table", exp.to_identifier(names[node.table], quoted=True))
        elif isinstance(node, exp.TableAlias) and node.name in names:
            node.set("this", exp.to_identifier(names[node.name], quoted=True))
    return tree


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
