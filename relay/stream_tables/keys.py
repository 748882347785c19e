"""Row identity: output columns by which the rows of a query are unique."""

from sqlglot import exp

from relay.stream_tables.joins import joins_of
from relay.stream_tables.shape import Place, Shape
from relay.stream_tables.trees import bare, distinct_on, groups, items, lateral_query, where


def unique_key(shape: Shape, select: exp.Select) -> tuple[str, ...] | None:
    """The columns, or None if rows may repeat. If they are none, there is one row at most."""
    outputs = {each.alias: bare(each) for each in select.expressions}
    on = distinct_on(select)
    if on is not None:
        return _named(outputs, on) if on else tuple(outputs)
    if shape.multiplies(select):
        return None
    if shape.is_grouped(select):
        return _named(outputs, groups(select))
    return _Determined(shape, select).key(outputs)


def _named(outputs: dict[str, exp.Expr], values: list[exp.Expr]) -> tuple[str, ...] | None:
    names = [next((name for name, output in outputs.items() if output == value), None) for value in values]
    return tuple(dict.fromkeys(name for name in names if name)) if all(names) else None


def _lateral_key(shape: Shape, query: exp.Query | None) -> tuple[str, ...] | None:
    """By which the rows of a lateral subquery are unique, for one row of what it refers to."""
    if not isinstance(query, exp.Select):
        return None
    limit = query.args.get("limit")
    if isinstance(limit, exp.Limit) and limit.expression.name == "1":
        return ()
    return unique_key(shape, query)


class _Determined:
    """Which columns follow from which: a table's from its key, and what a join compares."""

    def __init__(self, shape: Shape, select: exp.Select) -> None:
        self._keys: dict[str, tuple[str, ...] | None] = {}
        self._follows: list[tuple[Place, Place]] = []
        self._needs: dict[str, set[str]] = {}
        joins = joins_of(select)
        for item in items(select):
            alias = item.alias_or_name
            if alias in shape.instances:
                self._keys[alias] = shape.instances[alias].source.key
            elif isinstance(item, exp.Subquery) and isinstance(item.this, exp.Select):
                self._keys[alias] = unique_key(shape, item.this)
            else:
                query = lateral_query(item)
                self._keys[alias] = _lateral_key(shape, query)
                self._needs[alias] = {each.table for each in query.find_all(exp.Column)} if query else set()
        mine = set(self._keys)
        self._needs = {alias: needs & mine for alias, needs in self._needs.items()}
        for value in where(select):
            self._compare(value, both=True, nullable=frozenset())
        for condition in joins.conditions:
            self._compare(condition.value, both=joins.holds(condition), nullable=condition.nullable)

    def _compare(self, value: exp.Expr, *, both: bool, nullable: frozenset[str]) -> None:
        """What is known of one side is known of the other; in an outer join, only of the side that may be missing."""
        if not isinstance(value, exp.EQ):
            return
        one, other = bare(value.this), bare(value.expression)
        if isinstance(one, exp.Column) and isinstance(other, exp.Column):
            for known, then in ((one, other), (other, one)):
                if both or (then.table in nullable and known.table not in nullable):
                    self._follows.append(((known.table, known.name), (then.table, then.name)))

    def _are_all(self, known: set[Place]) -> bool:
        """Whether these columns determine one row of everything in FROM."""
        whole: set[str] = set()
        size = -1
        while size != len(known) + len(whole):
            size = len(known) + len(whole)
            known |= {then for place, then in self._follows if place in known or place[0] in whole}
            whole |= {
                alias
                for alias, key in self._keys.items()
                if key is not None
                and all((alias, column) in known for column in key)
                and self._needs.get(alias, set()) <= whole
            }
        return whole == set(self._keys)

    def key(self, outputs: dict[str, exp.Expr]) -> tuple[str, ...] | None:
        columns = {name: (value.table, value.name) for name, value in outputs.items() if isinstance(value, exp.Column)}
        names = list(columns)
        if not self._are_all(set(columns.values())):
            return None
        for name in columns:
            if self._are_all({columns[each] for each in names if each != name}):
                names.remove(name)
        return tuple(names)
