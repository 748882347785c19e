"""Where a query can show the difference between equal values: 1.5 and 1.50 as texts, or in the digits of a quotient.

Sums of changes, groups and keys go by equality. So a value may be kept in a state, and a change of its form alone may
be left out, only where no more than equality is seen of it.
"""

from dataclasses import replace

from sqlglot import exp

from relay.stream_tables.plan import Column
from relay.stream_tables.shape import Shape
from relay.stream_tables.trees import bare
from relay.stream_tables.types import base, one_form, scale

COMPARISONS = (
    exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Between, exp.In, exp.Is, exp.NullSafeEQ, exp.NullSafeNEQ,
    exp.Any,
)  # fmt: skip
BY_EQUALITY = (exp.Group, exp.Ordered, exp.Order, exp.Distinct, exp.Count)
KEEPS = (exp.Paren, exp.Sum, exp.Min, exp.Max, exp.Coalesce, exp.Filter, exp.Case, exp.If)
ARITHMETIC = (exp.Add, exp.Sub, exp.Mul, exp.Neg)


def shows_form(node: exp.Expr, top: exp.Select, *, numeric: bool) -> bool:
    """Whether two equal values in this place can yield results that are not equal. `numeric`: the value is a number
    without floating point, whose sums, differences and products are equal if the numbers are."""
    parent = node.parent
    if parent is None or isinstance(parent, exp.Exists):
        return False
    if isinstance(parent, COMPARISONS + BY_EQUALITY):
        return False
    if isinstance(parent, exp.Window) and node.arg_key == "partition_by":
        return False
    if isinstance(parent, exp.Alias):
        return not _is_seen_further(node, top)
    if isinstance(parent, KEEPS) or (numeric and (isinstance(parent, ARITHMETIC) or _is_number_cast(parent))):
        return shows_form(parent, top, numeric=numeric)
    return True


def _is_seen_further(output: exp.Expr, top: exp.Select) -> bool:
    """Whether it is an output of the query, or a column of a subquery in FROM, which is looked at where it is read."""
    select = output.find_ancestor(exp.Select)
    holder = select.parent if select else None
    return select is top or (
        isinstance(bare(output), exp.Column) and isinstance(holder, exp.Subquery) and bool(holder.alias)
    )


def _is_number_cast(node: exp.Expr) -> bool:
    return isinstance(node, exp.Cast) and node.to.this in {
        exp.DataType.Type.DECIMAL, exp.DataType.Type.INT, exp.DataType.Type.BIGINT, exp.DataType.Type.SMALLINT,
    }  # fmt: skip


def exact_columns(shape: Shape) -> dict[int, set[str]]:
    """By source, the columns whose changes of form alone can change the result."""
    found: dict[int, set[str]] = {}
    for node in shape.select.find_all(exp.Column):
        place = shape.origin(node)
        if place is None:
            continue
        column = shape.column(place)
        if not one_form(column) and shows_form(node, shape.select, numeric=base(column.type) == "numeric"):
            found.setdefault(shape.instances[place[0]].source.oid, set()).add(column.name)
    return found


def shows_form_of_zero(node: exp.Expr, top: exp.Select) -> bool:
    """Whether 0 and 0.00 in this place can yield results that are not equal: products and quotients of both are 0."""
    parent = node.parent
    if isinstance(parent, exp.Mul | exp.Paren | exp.Neg) or (isinstance(parent, exp.Div) and node is parent.this):
        return shows_form_of_zero(parent, top)
    return shows_form(node, top, numeric=True)


def digits_but_zero(shape: Shape, value: exp.Expr) -> int | None:
    """How many fractional digits each value has that is not 0; 0 may be an integer."""
    value = bare(value)
    if not isinstance(value, exp.Case):
        return digits(shape, value)
    found = {digits_but_zero(shape, each) for each in _branches(value) if not _is_null(each) and not _is_zero(each)}
    return found.pop() if len(found) == 1 else None


def _is_zero(value: exp.Expr) -> bool:
    value = bare(value)
    return _is_zero(value.this) if isinstance(value, exp.Cast) else isinstance(value, exp.Literal) and value.name == "0"


def digits(shape: Shape, value: exp.Expr) -> int | None:
    """How many fractional digits every value of a numeric expression has; None if that is not known."""
    value = bare(value)
    found = None
    if isinstance(value, exp.Column):
        place = shape.origin(value)
        shown = shape.output(value)
        found = scale(shape.column(place)) if place else digits(shape, shown) if shown is not None else None
    elif isinstance(value, exp.Literal) and "e" not in value.name.lower():
        found = len(value.name.partition(".")[2])
    elif isinstance(value, exp.Cast):
        found = _digits_of_cast(shape, value)
    elif isinstance(value, exp.Neg | exp.Sum | exp.Min | exp.Max | exp.Filter):
        found = digits(shape, value.this)
    elif isinstance(value, exp.Add | exp.Sub | exp.Mul):
        found = _digits_of_pair(shape, value)
    elif isinstance(value, exp.Coalesce | exp.Case):
        found = _digits_of_branches(shape, value)
    return found


def _digits_of_pair(shape: Shape, value: exp.Add | exp.Sub | exp.Mul) -> int | None:
    one, other = digits(shape, value.this), digits(shape, value.expression)
    if one is None or other is None:
        return None
    return one + other if isinstance(value, exp.Mul) else max(one, other)


def _digits_of_cast(shape: Shape, value: exp.Cast) -> int | None:
    to = value.to
    if to.this in {exp.DataType.Type.INT, exp.DataType.Type.BIGINT, exp.DataType.Type.SMALLINT}:
        return 0
    if to.this != exp.DataType.Type.DECIMAL:
        return None
    if to.expressions:
        return int(to.expressions[1].name) if len(to.expressions) == 2 else 0
    return digits(shape, value.this)


def _digits_of_branches(shape: Shape, value: exp.Coalesce | exp.Case) -> int | None:
    found = {digits(shape, each) for each in _branches(value) if not _is_null(each)}
    return found.pop() if len(found) == 1 else None


def _branches(value: exp.Coalesce | exp.Case) -> list[exp.Expr]:
    if isinstance(value, exp.Coalesce):
        return [value.this, *value.expressions]
    default = value.args.get("default")
    return [each.args["true"] for each in value.args["ifs"]] + ([default] if default else [])


def _is_null(value: exp.Expr) -> bool:
    value = bare(value)
    return isinstance(value, exp.Null) or (isinstance(value, exp.Cast) and isinstance(bare(value.this), exp.Null))


def node_columns(shapes: list[Shape], found: tuple[Column, ...]) -> tuple[Column, ...]:
    """The columns of a node, with what is known of their values. It is one SELECT, or UNION ALL of several."""
    arms = zip(*([bare(each) for each in shape.select.expressions] for shape in shapes), strict=True)
    return tuple(_node_column(shapes, list(values), each) for values, each in zip(arms, found, strict=True))


def _node_column(shapes: list[Shape], values: list[exp.Expr], found: Column) -> Column:
    arms = list(zip(shapes, values, strict=True))
    known = {digits(shape, value) for shape, value in arms if not _is_null(value)}
    not_null = all(_is_never_null(shape, value) for shape, value in arms)
    return replace(found, not_null=not_null, digits=known.pop() if len(known) == 1 else None)


def _is_never_null(shape: Shape, value: exp.Expr) -> bool:
    place = shape.origin(value) if isinstance(value, exp.Column) else None
    if place:
        return shape.column(place).not_null and shape.instances[place[0]].top
    return isinstance(value, exp.Count)
