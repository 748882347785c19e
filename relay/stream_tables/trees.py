"""Small helpers for trees: what is in a SELECT, and pieces to build one from."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeGuard

from sqlglot import exp

QUERIES = (exp.Select, exp.SetOperation)


def identifier(name: str) -> exp.Identifier:
    return exp.to_identifier(name, quoted=True)


def column(name: str, table: str | None = None) -> exp.Column:
    return exp.Column(this=identifier(name), table=identifier(table) if table else None)


def named(value: exp.Expr, name: str) -> exp.Alias:
    """The value as an output column."""
    return exp.Alias(this=value, alias=identifier(name))


def number(value: int) -> exp.Cast:
    """A bigint."""
    return exp.cast(exp.Literal.number(value) if value >= 0 else exp.Neg(this=exp.Literal.number(-value)), "bigint")


def call(name: str, *values: exp.Expr) -> exp.Anonymous:
    return exp.Anonymous(this=name, expressions=list(values))


def row_hash(values: Iterable[exp.Expr]) -> exp.Anonymous:
    """Equal rows have equal hashes, nulls too."""
    return call("hash_record_extended", call("ROW", *values), exp.Literal.number(0))


def our_table(name: str, alias: str) -> exp.Table:
    """A table or view of `tide_stream`."""
    return exp.Table(this=identifier(name), db=identifier("tide_stream"), alias=exp.TableAlias(this=identifier(alias)))


def under(query: exp.Query, alias: str) -> exp.Subquery:
    """A query as an item of FROM."""
    return exp.Subquery(this=query, alias=exp.TableAlias(this=identifier(alias)))


def bare(value: exp.Expr) -> exp.Expr:
    """Without parentheses and without a name."""
    while isinstance(value, exp.Paren | exp.Alias):
        value = value.this
    return value


def conjuncts(condition: exp.Expr | None) -> list[exp.Expr]:
    """The conditions that AND joins."""
    if condition is None:
        return []
    condition = bare(condition)
    if isinstance(condition, exp.And):
        return conjuncts(condition.this) + conjuncts(condition.expression)
    return [condition]


def where(select: exp.Select) -> list[exp.Expr]:
    clause = select.args.get("where")
    return conjuncts(clause.this) if clause else []


def also_where(select: exp.Select, *conditions: exp.Expr) -> exp.Select:
    """The same SELECT with more conditions."""
    clause = select.args.get("where")
    every = ([clause.this] if clause else []) + list(conditions)
    if every:
        select.set("where", exp.Where(this=exp.and_(*every, copy=False)))
    return select


def union_all(queries: Sequence[exp.Query]) -> exp.Query:
    first, *others = queries
    for other in others:
        first = exp.Union(this=first, expression=other, distinct=False)
    return first


def own(root: exp.Expr) -> Iterator[exp.Expr]:
    """The nodes of a tree; of a query inside it, the query alone."""
    return root.walk(prune=lambda node: node is not root and isinstance(node, QUERIES))


def queries_in(root: exp.Expr) -> list[exp.Query]:
    """The queries directly inside a tree: in FROM and in expressions."""
    return [node for node in own(root) if node is not root and isinstance(node, QUERIES)]


def items(select: exp.Select) -> Iterator[exp.Expr]:
    """Everything in FROM: tables, subqueries, functions. Parentheses are taken apart."""
    clause = select.args.get("from_")
    if clause:
        yield from _items(clause.this)
        for join in select.args.get("joins") or ():
            yield from _items(join.this)


def _items(node: exp.Expr) -> Iterator[exp.Expr]:
    if is_group(node):
        yield from _items(node.this)
    else:
        yield node
    for join in node.args.get("joins") or ():
        yield from _items(join.this)


def is_group(node: exp.Expr) -> bool:
    """Whether it is a pair of parentheses around joins."""
    return isinstance(node, exp.Subquery) and not isinstance(node.this, QUERIES)


def is_table(node: exp.Expr) -> TypeGuard[exp.Table]:
    """Whether it is a table or view, and no function."""
    return isinstance(node, exp.Table) and isinstance(node.this, exp.Identifier)


def lateral_query(node: exp.Expr) -> exp.Query | None:
    """The query of a lateral subquery; None if it is something else, such as a function."""
    inner = node.this if isinstance(node, exp.Lateral) else None
    query = inner.this if isinstance(inner, exp.Subquery) else None
    return query if isinstance(query, QUERIES) else None


def groups(select: exp.Select) -> list[exp.Expr]:
    """What it groups by."""
    clause = select.args.get("group")
    return [bare(value) for value in clause.expressions] if clause else []


def distinct_on(select: exp.Select) -> list[exp.Expr] | None:
    """What DISTINCT ON names; [] of a plain DISTINCT, None of none."""
    clause = select.args.get("distinct")
    if clause is None:
        return None
    on = clause.args.get("on")
    return [bare(value) for value in on.expressions] if on else []
