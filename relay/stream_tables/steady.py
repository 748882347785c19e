"""Subqueries that may have several answers: LIMIT of rows that tie, texts put together in any order, sums of floats.

The query itself may show any of them. But rows that are taken away have to be the rows that were put in, so what is
computed again must be what was computed before: here only what has one answer counts.
"""

from collections.abc import Iterator

from sqlglot import exp

from relay.stream_tables.forms import shows_form
from relay.stream_tables.shape import Shape, has_windows
from relay.stream_tables.trees import QUERIES, bare, distinct_on, items, own
from relay.stream_tables.types import base, one_form

ORDERLESS = {"bool_and", "bool_or", "every", "bit_and", "bit_or"}
"""Aggregates to which it is all the same in which order the rows come."""
FLOATS = {exp.DataType.Type.DOUBLE, exp.DataType.Type.FLOAT}


def unsteady(shape: Shape) -> list[frozenset[str]]:
    """For each subquery that may have several answers, the tables that it reads."""
    queries = (node for node in shape.select.find_all(*QUERIES) if node is not shape.select)
    return [
        frozenset(table.alias for table in query.find_all(exp.Table) if table.alias in shape.instances)
        for query in queries
        if not _has_one_answer(shape, query)
    ]


def _has_one_answer(shape: Shape, query: exp.Expr) -> bool:
    cuts = bool(query.args.get("limit") or query.args.get("offset"))
    if not isinstance(query, exp.Select):
        return not cuts and not _merges_forms(shape, query)
    ordered = query.args.get("order")
    chooses = cuts or bool(distinct_on(query)) or (isinstance(query.parent, exp.Anonymous) and not cuts)
    if chooses and not _is_total(shape, query, ordered):
        return False
    steady = all(_is_steady(shape, query, each) for each in shape.aggregates(query))
    return steady and not has_windows(query) and not _shows_choice(shape, query)


def _merges_forms(shape: Shape, query: exp.Expr) -> bool:
    """Whether a set operation makes one of equal values that may differ, such as 1.5 and 1.50, and shows which."""
    if isinstance(query, exp.Union) and not query.args.get("distinct"):
        return False
    holder = query.parent
    while isinstance(holder, exp.SetOperation) or (isinstance(holder, exp.Subquery) and not holder.alias):
        holder = holder.parent
    if isinstance(holder, exp.In | exp.Any | exp.Exists):
        return False
    arms = [arm for arm in query.find_all(exp.Select) if isinstance(arm.parent, exp.SetOperation | exp.Subquery)]
    shown = [node for arm in arms for value in arm.expressions for node in own(value) if isinstance(node, exp.Column)]
    places = [shape.origin(node) for node in shown]
    return not all(place and one_form(shape.column(place)) for place in places)


def _is_steady(shape: Shape, select: exp.Select, aggregate: exp.Expr) -> bool:
    if isinstance(aggregate, exp.Sum | exp.Avg):
        return _is_exact(shape, aggregate.this)
    if not isinstance(aggregate, exp.Anonymous) or aggregate.name in ORDERLESS:
        return True
    return _is_total(shape, select, aggregate.find(exp.Order))


def _is_total(shape: Shape, select: exp.Select, order: exp.Expr | None) -> bool:
    """Whether no two rows tie: the SELECT reads one table, and is sorted by its key too."""
    aliases = [item.alias_or_name for item in items(select)]
    if order is None or len(aliases) != 1 or aliases[0] not in shape.instances:
        return False
    key = shape.instances[aliases[0]].source.key
    sorted_by = {each.name for each in _sorted_by(order) if each.table == aliases[0]}
    return key is not None and sorted_by >= set(key)


def _sorted_by(order: exp.Expr) -> Iterator[exp.Column]:
    for each in order.expressions:
        value = bare(each.this)
        if isinstance(value, exp.Column):
            yield value


def _shows_choice(shape: Shape, select: exp.Select) -> bool:
    """Whether it takes one of several equal values, such as 1.5 and 1.50, and the query shows which."""
    if not shape.is_grouped(select) and distinct_on(select) is None:
        return False
    for output in select.expressions:
        places = [shape.origin(node) for node in own(output) if isinstance(node, exp.Column)]
        kinds = [shape.column(place) for place in places if place and not one_form(shape.column(place))]
        numeric = all(base(kind.type) == "numeric" for kind in kinds)
        if kinds and any(shows_form(use, shape.select, numeric=numeric) for use in _uses(shape, select, output)):
            return True
    return False


def _uses(shape: Shape, select: exp.Select, output: exp.Expr) -> Iterator[exp.Expr]:
    """Where an output of a subquery is read, through further subqueries too."""
    holder = select.parent
    if not isinstance(holder, exp.Subquery) or not holder.alias:
        yield holder if isinstance(holder, exp.Subquery) else select
        return
    for column in shape.select.find_all(exp.Column):
        if (column.table, column.name) != (holder.alias, output.alias):
            continue
        further = column.find_ancestor(exp.Select)
        if isinstance(column.parent, exp.Alias) and further is not None and further is not shape.select:
            yield from _uses(shape, further, column.parent)
        else:
            yield column


def _is_exact(shape: Shape, value: exp.Expr) -> bool:
    """Whether a number is an integer or a numeric, whose sums are the same in any order."""
    return all(_is_exact_node(shape, node) for node in own(value))


def _is_exact_node(shape: Shape, node: exp.Expr) -> bool:
    if isinstance(node, exp.Column):
        place = shape.origin(node)
        if place:
            return base(shape.column(place).type) not in {"double precision", "real"}
        shown = shape.output(node)
        return shown is not None and _is_exact(shape, shown)
    if isinstance(node, exp.Cast):
        return node.to.this not in FLOATS
    return not isinstance(node, exp.Anonymous) and not isinstance(node, QUERIES)
