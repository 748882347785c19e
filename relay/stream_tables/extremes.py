"""The least and the greatest of all rows: of a change only what goes beyond them, or takes them away, matters."""

from sqlglot import exp

from relay.stream_tables.delta import VALUES, WEIGHT
from relay.stream_tables.shape import Shape
from relay.stream_tables.trees import also_where, bare, call, column, named, number, under, union_all

STORED = "t"
ROWS = "r"


def extremes(shape: Shape) -> list[exp.Expr] | None:
    """What a SELECT shows, if that is MIN and MAX of all rows, with FILTER or without, and nothing else."""
    select = shape.select
    found = [bare(each) for each in select.expressions]
    if any(select.args.get(clause) for clause in ("group", "having", "distinct")):
        return None
    calls = [_call(each) for each in found]
    if not all(isinstance(each, exp.Min | exp.Max) and not isinstance(each.this, exp.Distinct) for each in calls):
        return None
    return found


def _call(value: exp.Expr) -> exp.Expr:
    return value.this if isinstance(value, exp.Filter) else value


def arguments(select: exp.Select, found: list[exp.Expr]) -> exp.Select:
    """The rows before they are one: `a0`, `a1` .., null where a FILTER fails."""
    rows = select.copy()
    rows.set("order", None)
    values: list[exp.Alias] = []
    for each in found:
        value = _call(each).this.copy()
        if isinstance(each, exp.Filter):
            value = exp.Case(ifs=[exp.If(this=each.expression.this.copy(), true=value)])
        values.append(named(value, f"a{len(values)}"))
    rows.set("expressions", values)
    return rows


def net(terms: list[exp.Select], width: int) -> exp.Select:
    """Rows that came or went, each once."""
    columns = [column(f"a{place}", ROWS) for place in range(width)]
    weight = exp.Sum(this=column(WEIGHT, ROWS))
    query = exp.Select(expressions=[*columns, named(weight, WEIGHT)]).from_(under(union_all(terms), ROWS))
    differs = exp.Having(this=exp.NEQ(this=weight.copy(), expression=exp.Literal.number(0)))
    grouped = query.group_by(*(each.copy() for each in columns), copy=False)
    grouped.set("having", differs)
    return grouped


def now(select: exp.Select, found: list[exp.Expr], names: list[str], stored: exp.Select) -> exp.Select:
    """The row as it is now. Only if what it held is gone are all rows looked at: an index may answer that."""
    values = []
    for place, (each, name) in enumerate(zip(found, names, strict=True)):
        kind, least = type(_call(each)), isinstance(_call(each), exp.Min)
        was, changed, weight = column(name, STORED), column(f"a{place}", VALUES), column(WEIGHT, VALUES)
        beyond = exp.LTE(this=changed, expression=was) if least else exp.GTE(this=changed, expression=was)
        gone = also_where(_changes(exp.Literal.number(1)), exp.LT(this=weight, expression=number(0)), beyond)
        came = also_where(_changes(kind(this=changed.copy())), exp.GT(this=weight.copy(), expression=number(0)))
        whole = select.copy()
        whole.set("expressions", [each.copy()])
        value = exp.Case(
            ifs=[exp.If(this=exp.Exists(this=gone), true=exp.Subquery(this=whole))],
            default=call("LEAST" if least else "GREATEST", was.copy(), exp.Subquery(this=came)),
        )
        values.append(named(value, name))
    row = stored.copy()
    row.set("expressions", [*values, named(number(1), WEIGHT)])
    return row


def _changes(value: exp.Expr) -> exp.Select:
    return exp.Select(expressions=[value]).from_(exp.Table(this=exp.to_identifier(VALUES, quoted=True)))
