"""Classes of columns that are equal in every row, and the tables that matter only where they have the class's value.

If one class has a column of every table that changed, then only the part of the result with the values of the changed
rows can have changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlglot import exp

from relay.stream_tables.shape import Place, Shape, partitions
from relay.stream_tables.trees import bare, distinct_on, groups


@dataclass(frozen=True)
class EqualClass:
    """`columns` are equal wherever FROM has a row. `members` says by which column each table follows the class's value.
    `nulls`: whether its value can be null in a row."""

    columns: frozenset[Place]
    members: dict[str, str]
    nulls: bool


def classes(shape: Shape) -> list[EqualClass]:
    """All classes of a query; first those with a whole key, then those that join most."""
    found = [_with_members(shape, columns) for columns in _columns(shape)]
    return sorted(found, key=lambda each: (not _has_key(shape, each), -len(each.columns)))


def output_of(shape: Shape, found: EqualClass) -> str | None:
    """The output column that shows the class's value, if the result is made for each value by itself; else None.

    Groups, DISTINCT ON and windows may not span values of the class.
    """
    select = shape.select
    on = distinct_on(select)
    if shape.is_grouped(select) and not _one_of(shape, found, groups(select)):
        return None
    if on and not _one_of(shape, found, on):
        return None
    if not all(_one_of(shape, found, each) for each in partitions(select)):
        return None
    return next((each.alias for each in select.expressions if _is_of(shape, found, each)), None)


def _one_of(shape: Shape, found: EqualClass, values: list[exp.Expr]) -> bool:
    return any(_is_of(shape, found, value) for value in values)


def _is_of(shape: Shape, found: EqualClass, value: exp.Expr) -> bool:
    return isinstance(bare(value), exp.Column) and shape.trace(value) in found.columns


def _columns(shape: Shape) -> Iterator[frozenset[Place]]:
    """The columns of tables that have a row in each row of FROM, joined to classes by the equalities that hold."""
    classes = {
        (instance.alias, column.name): frozenset({(instance.alias, column.name)})
        for instance in shape.instances.values()
        if instance.top
        for column in instance.source.columns
        if column.hashable and column.name in instance.source.captured
    }
    for equality in shape.equalities:
        if equality.holds and equality.one in classes and equality.other in classes:
            joined = classes[equality.one] | classes[equality.other]
            classes |= dict.fromkeys(joined, joined)
    return iter(dict.fromkeys(classes.values()))


def _with_members(shape: Shape, columns: frozenset[Place]) -> EqualClass:
    members: dict[str, str] = {}
    for alias, column in sorted(columns):
        members.setdefault(alias, column)
    grows = True
    while grows:
        grows = False
        for equality in shape.equalities:
            for hanging in equality.hangs:
                other = equality.other if hanging == equality.one else equality.one
                follows = other in columns or members.get(other[0]) == other[1]
                if follows and hanging[0] not in members:
                    members[hanging[0]] = hanging[1]
                    grows = True
    one = next(iter(columns))
    return EqualClass(columns, members, nulls=len(columns) == 1 and not shape.column(one).not_null)


def _has_key(shape: Shape, found: EqualClass) -> bool:
    return any(shape.instances[alias].source.key == (column,) for alias, column in found.columns)
