"""What a change of the tables does to a query: trees to trees.

A table that changed is there in two forms: as it is now, and as its net delta, rows with a weight `__w`. The past is
what is now, less the delta.
"""

from collections.abc import Callable, Iterator
from functools import partial, reduce
from itertools import combinations

from sqlglot import exp

from relay.stream_tables.classes import EqualClass
from relay.stream_tables.dialect import parse_table
from relay.stream_tables.plan import Source
from relay.stream_tables.shape import Instance, Shape
from relay.stream_tables.trees import (
    QUERIES,
    also_where,
    bare,
    call,
    column,
    groups,
    identifier,
    items,
    named,
    number,
    our_table,
    row_hash,
    under,
    union_all,
    where,
)  # fmt: skip

WEIGHT = "__w"
VALUES = "__k"
"""The affected values: their name, and that of their table."""
TABLE = "t"


def linear(rows: exp.Select, changed: list[Instance]) -> list[exp.Select]:
    """New rows less old rows, multiplied out with old = new - delta: for each set of the changed tables the query with
    their deltas in their place, all else as it is now. Sets of an even number count negative."""
    terms = []
    for size in range(1, len(changed) + 1):
        for some in combinations(changed, size):
            term = rows.copy()
            for instance in some:
                _table(term, instance.alias).replace(_delta(instance, _table(term, instance.alias)))
            weight = _weigh(term, {instance.alias for instance in some})
            terms.append(weighted(term, exp.Neg(this=exp.Paren(this=weight)) if size % 2 == 0 else weight))
    return terms


def weighted(rows: exp.Select, weight: exp.Expr) -> exp.Select:
    """The rows with a weight."""
    return rows.select(named(weight, WEIGHT), copy=False)


def affected(shape: Shape, found: EqualClass, changed: list[Instance]) -> exp.With:
    """The values of a class in the rows that changed, as the table `__k` of a WITH. Rows that fail a condition on their
    table alone never counted, and never will."""
    parts: list[exp.Query] = []
    for instance in changed:
        value = named(column(found.members[instance.alias], instance.alias), VALUES)
        part = exp.Select(expressions=[value]).from_(our_table(instance.source.delta, instance.alias))
        parts.append(also_where(part, *(each.copy() for each in _local(shape, instance))))
    first = parts[0]
    if len(parts) == 1 and isinstance(first, exp.Select):
        return with_values(first.distinct(copy=False))
    return with_values(reduce(lambda one, other: exp.Union(this=one, expression=other, distinct=True), parts))


def with_values(query: exp.Query) -> exp.With:
    cte = exp.CTE(this=query, alias=exp.TableAlias(this=identifier(VALUES)), materialized=True)
    return exp.With(expressions=[cte])


def restricted(rows: exp.Select, shape: Shape, found: EqualClass, past: frozenset[int] = frozenset()) -> exp.Select:
    """The rows that the query makes for the affected values alone. The tables of `past` are as they were."""
    made = rows.copy()
    for alias, name in found.members.items():
        source = shape.instances[alias].source
        was = source.oid in past
        tied = _is_tied(shape, found, alias) and (source.key is not None or not was)
        if tied and not was:
            continue
        nulls = found.nulls and (alias, name) in found.columns
        limit = _as_they_are if tied else partial(of_values, value=column(name, TABLE), nulls=nulls)
        body = _past(source, limit, tied=tied) if was else union_all(limit(_read(source)))
        table = _table(made, alias)
        subquery = under(body, alias)
        subquery.set("joins", table.args.get("joins"))
        table.replace(subquery)
    for select in made.find_all(exp.Select):
        # Of a subquery PostgreSQL does not know the key.
        if groups(select):
            select.group_by(*(each.copy() for each in dict.fromkeys(shape.following(select))), copy=False)
    return made


def _as_they_are(rows: exp.Select) -> list[exp.Select]:
    return [rows]


def _is_tied(shape: Shape, found: EqualClass, alias: str) -> bool:
    """Whether it is read by a scalar subquery, for the value of a row outside: which is affected, or is not there.

    To limit it again would cost more for each such row than to look that value up.
    """
    select = shape.owner(alias)
    holder = select.parent
    if not isinstance(holder, exp.Subquery) or holder.alias or isinstance(holder.parent, exp.In | exp.Any | exp.Exists):
        return False
    mine = {item.alias_or_name for item in items(select)}
    sides = [(bare(each.this), bare(each.expression)) for each in where(select) if isinstance(each, exp.EQ)]
    return any(
        isinstance(outer, exp.Column)
        and outer.table not in mine
        and found.members.get(outer.table) == outer.name
        and isinstance(inner, exp.Column)
        and (inner.table, inner.name) == (alias, found.members[alias])
        for one, other in sides
        for inner, outer in ((one, other), (other, one))
    )


def of_values(rows: exp.Select, value: exp.Expr, *, nulls: bool) -> list[exp.Select]:
    """The rows with affected values. Null is asked for by itself: no index finds it by `in`."""
    values = exp.Select(expressions=[column(VALUES, VALUES)]).from_(exp.Table(this=identifier(VALUES)))
    found = [also_where(rows.copy(), exp.In(this=value.copy(), query=exp.Subquery(this=values)))]
    if nulls:
        null = exp.Is(this=column(VALUES, VALUES), expression=exp.Null())
        asked = exp.Select(expressions=[exp.Literal.number(1)]).from_(exp.Table(this=identifier(VALUES))).where(null)
        is_null = exp.Is(this=value.copy(), expression=exp.Null())
        found.append(also_where(rows.copy(), is_null, exp.Exists(this=asked)))
    return found


def _past(source: Source, limit: Callable[[exp.Select], list[exp.Select]], *, tied: bool) -> exp.Query:
    """A table before its delta, of affected values alone. With a key: what has no new row, and the old rows; without
    one, what is left when the new rows are taken away, and the old rows."""
    columns = [column(name, TABLE) for name in source.captured]
    present = limit(_read(source))
    if source.key is not None:
        parts: exp.Query = union_all([also_where(each, _has_no_new_row(source, hashed=tied)) for each in present])
    else:
        new = union_all(limit(_repeated(source, columns, sign=1)))
        new = new if isinstance(new, exp.Select) else exp.Select(expressions=[exp.Star()]).from_(under(new, TABLE))
        parts = exp.Except(this=union_all(present), expression=new, distinct=False)
    return union_all([parts, *limit(_gone(source, columns))])


def _has_no_new_row(source: Source, *, hashed: bool) -> exp.Not:
    """`hashed`: it is asked again and again, for few rows each time, and the new rows are hashed once for all."""
    delta = "d"
    key = source.key or ()
    if hashed and key and not source.is_node:
        new = exp.Select(expressions=[column(name, delta) for name in key]).from_(our_table(source.delta, delta))
        new = also_where(new, exp.GT(this=column(WEIGHT, delta), expression=exp.Literal.number(0)))
        row = exp.Tuple(expressions=[column(name, TABLE) for name in key])
        return exp.Not(this=exp.Paren(this=exp.In(this=row, query=exp.Subquery(this=new))))
    same = _same_key(source, delta)
    new = exp.Select(expressions=[exp.Literal.number(1)]).from_(our_table(source.delta, delta))
    positive = exp.GT(this=column(WEIGHT, delta), expression=exp.Literal.number(0))
    return exp.Not(this=exp.Exists(this=also_where(new, positive, *same)))


def _same_key(source: Source, delta: str) -> list[exp.Expr]:
    """That two rows have one key. The key of a node may be null, which only a hash finds."""
    key = source.key or ()
    pairs = [(column(name, delta), column(name, TABLE)) for name in key]
    if all(each.not_null for each in source.columns if each.name in key):
        return [exp.EQ(this=one, expression=other) for one, other in pairs]
    hashes = [row_hash(one.copy() for one, _ in pairs), row_hash(other.copy() for _, other in pairs)]
    same = [exp.NullSafeEQ(this=one, expression=other) for one, other in pairs]
    return [exp.EQ(this=hashes[0], expression=hashes[1]), *same]


def _gone(source: Source, columns: list[exp.Column]) -> exp.Select:
    """The rows of the past that are no longer there; with a key each was there once."""
    if source.key is None:
        return _repeated(source, columns, sign=-1)
    rows = exp.Select(expressions=[each.copy() for each in columns]).from_(our_table(source.delta, TABLE))
    return also_where(rows, exp.LT(this=column(WEIGHT, TABLE), expression=exp.Literal.number(0)))


def _repeated(source: Source, columns: list[exp.Column], *, sign: int) -> exp.Select:
    """The rows of a delta with one sign, as often as their weight says."""
    weight = column(WEIGHT, TABLE)
    times: exp.Expr = weight if sign > 0 else exp.Neg(this=weight)
    series = call("generate_series", number(1), times)
    numbers = exp.Lateral(this=series, alias=exp.TableAlias(this=identifier("g"), columns=[identifier("g")]))
    rows = exp.Select(expressions=[each.copy() for each in columns]).from_(our_table(source.delta, TABLE))
    return rows.join(numbers, join_type="cross", copy=False)


def _read(source: Source) -> exp.Select:
    """The columns of a table that the query reads."""
    table = parse_table(source.name)
    table.set("alias", exp.TableAlias(this=identifier(TABLE)))
    return exp.Select(expressions=[column(name, TABLE) for name in source.captured]).from_(table)


def _delta(instance: Instance, table: exp.Expr) -> exp.Table:
    delta = our_table(instance.source.delta, instance.alias)
    delta.set("joins", table.args.get("joins"))
    return delta


def _table(tree: exp.Expr, alias: str) -> exp.Expr:
    return next(node for node in tree.find_all(exp.Table) if node.alias == alias)


def _weigh(select: exp.Select, deltas: set[str]) -> exp.Expr:
    """The product of the weights in a SELECT; plain subqueries show theirs."""
    product: exp.Expr | None = None
    for weight in _weights(select, deltas):
        product = exp.Mul(this=product, expression=weight) if product else weight
    return product or number(1)


def _weights(select: exp.Select, deltas: set[str]) -> Iterator[exp.Column]:
    for item in items(select):
        alias = item.alias_or_name
        if alias in deltas:
            yield column(WEIGHT, alias)
        elif isinstance(item, exp.Subquery) and any(table.alias in deltas for table in item.this.find_all(exp.Table)):
            weighted(item.this, _weigh(item.this, deltas))
            yield column(WEIGHT, alias)


def _local(shape: Shape, instance: Instance) -> list[exp.Expr]:
    """Conditions on the table of an instance alone."""
    if not instance.top:
        return []
    return [each for each in where(shape.owner(instance.alias)) if _is_local(each, instance.alias)]


def _is_local(condition: exp.Expr, alias: str) -> bool:
    columns = list(condition.find_all(exp.Column))
    return bool(columns) and all(each.table == alias for each in columns) and not condition.find(*QUERIES)
