"""The plan of one query, as it stands."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import combinations

from sqlglot import exp

from relay.stream_tables.dialect import write
from relay.stream_tables.forms import exact_columns
from relay.stream_tables.immediate import keyed_change, reads_one_table, refuse_gaps
from relay.stream_tables.plan import (
    MOST_SOURCES,
    Change,
    Described,
    Kind,
    Plan,
    Read,
    Source,
    Strategy,
    Unsupported,
)
from relay.stream_tables.query import arms
from relay.stream_tables.shape import Shape, is_plain
from relay.stream_tables.state import State
from relay.stream_tables.strategies import Changed, Select, Signed, rows_change, state_change, text_of
from relay.stream_tables.trees import bare, column, distinct_on, named, under, union_all

Find = Callable[[Changed], Change]
Probe = Callable[[exp.Query], Read]
"""How PostgreSQL reads a query; nodes that it reads stand for what they hold. Raises Unsupported."""
WORTH: dict[Strategy, int] = {"linear": 4, "keyed": 3, "groups": 2, "two states": 1, "full": 0}


def plan_of(query: exp.Query, described: Described, sources: dict[str, Source], read: Probe) -> Plan:
    """How a query is refreshed as it stands. Raises Unsupported if nothing is better than all of it each time.

    Of one that reads nodes the whole is over their tables, and no reason to have no plan. `sources` says of which table
    each name in it is.
    """
    selects = arms(query)
    for select in selects:
        _name_outputs(select, described)
    if len(selects) > 1:
        _cast_outputs(selects, described, read)
    shapes = [Shape(select, sources, described) for select in selects]
    exact = _exact(shapes)
    parts = [Select(shape, described, exact) for shape in shapes]
    if described.immediate and not reads_one_table(parts):
        return _immediate(parts, described, exact)
    if len(parts) > 1:
        for part in parts:
            if not is_plain(part.shape.select, part.shape):
                raise Unsupported("UNION ALL joins queries that group, or choose rows")
        plan = _some(
            _plan("rows", described, exact, _remembered(lambda changed: _union_change(parts, changed), "rows"))
        )
    else:
        plan = _single(parts[0], described, exact, read)
    return replace(plan, joins=_joins(shapes))


def _single(part: Select, described: Described, exact: dict[int, set[str]], read: Probe) -> Plan:
    select = part.shape.select
    plans, why = [], None
    if part.shape.is_grouped(select) or distinct_on(select) == []:
        try:
            state = State(part.shape, read)
        except Unsupported as reason:
            why = str(reason)
        else:
            kept = _remembered(lambda changed: state_change(part, state, changed), "state")
            plans.append(_plan("state", described, exact, kept, part, state))
    if not plans or any(change.strategy != "linear" for change in plans[0].changes().values()):
        found = _remembered(lambda changed: rows_change(part, changed), "rows")
        plans.append(_plan("rows", described, exact, found, part))
    return _some(max(plans, key=_worth), why)


def _immediate(parts: list[Select], described: Described, exact: dict[int, set[str]]) -> Plan:
    if len(parts) > 1:
        raise Unsupported("UNION ALL of what reads more than one table")
    plan = _plan("rows", described, exact, _remembered(lambda some: keyed_change(parts[0], some), "rows"), parts[0])
    refuse_gaps(plan.changes())
    return plan


def _plan(
    kind: Kind,
    described: Described,
    exact: dict[int, set[str]],
    find: Find,
    part: Select | None = None,
    state: State | None = None,
) -> Plan:
    sources = frozenset(source.oid for source in described.sources)
    return Plan(
        kind=kind,
        key=part.key if part else None,
        groups=len(state.groups) if state else 0,
        fields=state.fields if state else (),
        out=write(state.out(described.stream_id)) if state else None,
        whole=write(state.whole()) if state else None,
        exact={oid: tuple(sorted(columns)) for oid, columns in sorted(exact.items())},
        indexes=_indexes(part, sources, find) if part and kind == "rows" else (),
        sources=sources,
        _change=find,
    )


def _some(plan: Plan, why: str | None = None) -> Plan:
    """The plan, if it is good for any set of changed sources. Raises Unsupported."""
    changes = list(plan.changes().values())
    if all(change.strategy == "full" for change in changes) and all(oid > 0 for oid in plan.sources):
        raise Unsupported(why or changes[0].reason or "no strategy is proven")
    return plan


def _worth(plan: Plan) -> tuple[int, int]:
    """How many sets of changed sources need no whole query, and how good the strategies are."""
    strategies = [change.strategy for change in plan.changes().values()]
    return sum(each != "full" for each in strategies), sum(WORTH[each] for each in strategies)


def _remembered(find: Find, form: Kind) -> Find:
    @cache
    def change(changed: Changed) -> Change:
        try:
            return find(changed)
        except Unsupported as reason:
            return Change("full", form, None, str(reason))

    return change


def _union_change(parts: list[Select], changed: Changed) -> Change:
    """Of UNION ALL, the changes of all arms."""
    rows: list[exp.Query] = []
    strategies: dict[Strategy, str | None] = {}
    for part in parts:
        if part.changed(changed):
            signed = part.signed(part.shape.select, changed)
            strategies[signed.strategy] = None if signed.strategy == "linear" else part.why_not_linear(changed)
            rows += [_by_itself(signed)] if signed.values else signed.rows
    least = min(strategies, key=WORTH.__getitem__)
    return replace(text_of(Signed(least, rows)), reason=strategies[least])


def _by_itself(signed: Signed) -> exp.Select:
    """The rows with their WITH, as one SELECT."""
    query = union_all(signed.rows)
    query.set("with_", signed.values)
    names = [column(name, "u") for name in query.named_selects]
    return exp.Select(expressions=names).from_(under(query, "u"))


def _indexes(part: Select, sources: Changed, find: Find) -> tuple[tuple[str, ...], ...]:
    sizes = range(1, len(sources) + 1) if len(sources) <= MOST_SOURCES else (1, len(sources))
    sets = [frozenset(some) for size in sizes for some in combinations(sorted(sources), size)]
    found = [part.output_columns(some) for some in sets if find(some).strategy == "keyed"]
    return tuple(dict.fromkeys(columns for columns in found if columns and columns != part.key))


def _name_outputs(select: exp.Select, described: Described) -> None:
    values = [
        named(bare(value).copy(), each.name) for value, each in zip(select.expressions, described.columns, strict=True)
    ]
    select.set("expressions", values)


def _cast_outputs(selects: list[exp.Select], described: Described, read: Probe) -> None:
    """The columns of UNION ALL have one type, which those of an arm may be cast to."""
    for select in selects:
        found = read(select).columns
        values = [
            value if is_now.type == each.type else named(exp.cast(value.this, each.type), each.name)
            for value, is_now, each in zip(select.expressions, found, described.columns, strict=True)
        ]
        select.set("expressions", values)


def _joins(shapes: list[Shape]) -> dict[int, tuple[str, ...]]:
    """By source, the columns that are compared with columns of tables: by an index on them, rows are found."""
    found: dict[int, set[str]] = {}
    for shape in shapes:
        for each in shape.equalities:
            for alias, name in (each.one, each.other):
                found.setdefault(shape.instances[alias].source.oid, set()).add(name)
    return {oid: tuple(sorted(names)) for oid, names in sorted(found.items()) if oid > 0}  # not of nodes


def _exact(shapes: list[Shape]) -> dict[int, set[str]]:
    exact: dict[int, set[str]] = {}
    for shape in shapes:
        for oid, columns in exact_columns(shape).items():
            exact.setdefault(oid, set()).update(columns)
    if any(oid < 0 for oid in exact):
        raise Unsupported("it shows the form of equal values of a subquery, such as 1.5 and 1.50")
    return exact
