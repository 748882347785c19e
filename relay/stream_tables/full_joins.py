"""FULL JOIN as what can be followed: the LEFT JOIN, and the rows of the right side that it leaves out.

`a FULL JOIN b ON c` has the rows of `a LEFT JOIN b ON c`, and each row of `b` for which no row of `a` fulfills `c`,
with nulls in place of the columns of `a`.
"""

from collections.abc import Iterator

from sqlglot import exp

from relay.stream_tables.apart import aliases, put_columns, rename
from relay.stream_tables.plan import Unsupported
from relay.stream_tables.trees import also_where, bare, is_group, items, named, under, union_all


def split_full_joins(query: exp.Query, names: Iterator[str]) -> dict[str, str]:
    """Writes each FULL JOIN of a query as a subquery in FROM, in which everything has a name of its own. Returns new
    names of what is read twice then, with the old ones. Raises Unsupported."""
    renamed: dict[str, str] = {}
    while join := next((each for each in query.find_all(exp.Join) if each.side == "FULL"), None):
        left, place = _cut_out(join)
        right, on = join.this, join.args["on"]
        select = place.find_ancestor(exp.Select)
        assert select is not None
        alias = next(names)
        moved = [item.alias_or_name for part in (left, _from(right.copy())) for item in items(part)]
        shown = put_columns(select, set(moved), alias)
        matched = _shows(left.copy(), shown)
        matched.append("joins", exp.Join(this=right.copy(), side="LEFT", on=on.copy()))
        others = _shows(_from(right.copy()), shown, nulls=frozenset(item.alias_or_name for item in items(left)))
        partner = also_where(left.select(exp.Literal.number(1), copy=True), on.copy())
        also_where(others, exp.Not(this=exp.Exists(this=partner)))
        to = {old: next(names) for old in aliases(others)}
        # Names of names: an old one may be new itself.
        renamed |= {new: renamed.get(old, old) for old, new in to.items()}
        whole = under(union_all([matched, rename(others, to)]), alias)
        whole.set("joins", place.args.get("joins"))
        place.replace(whole)
        beside = {item.alias_or_name for item in items(select)} - {alias}
        if any(each.table in beside for each in whole.this.find_all(exp.Column)):
            raise Unsupported("it has a FULL JOIN of what refers to a table beside it")
    return renamed


def _cut_out(join: exp.Join) -> tuple[exp.Select, exp.Table]:
    """Takes a join and all before it out of FROM: what is at its left as a FROM, and what stands in the place of both,
    with the joins after it. Raises Unsupported."""
    holder = join.parent
    assert holder is not None
    joins = holder.args["joins"]
    number = next(place for place, each in enumerate(joins) if each is join)
    before, after = joins[:number], joins[number + 1 :]
    if any({name for name, value in each.args.items() if value} == {"this"} for each in before):
        raise Unsupported("it has a FULL JOIN and a comma without parentheses between them")
    place = exp.Table(this=exp.to_identifier("place"))
    if isinstance(holder, exp.Select):
        first = holder.args["from_"].this.copy()
        holder.set("from_", exp.From(this=place))
        holder.set("joins", [each.copy() for each in after])
    else:
        first = holder.copy()
        first.set("joins", None)
        around = holder.parent
        if not after and around is not None and is_group(around):
            holder, after = around, around.args.get("joins") or []  # Parentheses are of joins only.
        place.set("joins", [each.copy() for each in after])
        holder.replace(place)
    left = _from(first)
    left.set("joins", [each.copy() for each in before])
    return left, place


def _from(item: exp.Expr) -> exp.Select:
    select = exp.Select()
    select.set("from_", exp.From(this=item))
    return select


def _shows(rows: exp.Select, shown: list[exp.Expr], nulls: frozenset[str] = frozenset()) -> exp.Select:
    values = [_without(each, nulls) for each in shown] or [exp.Null()]
    rows.set("expressions", [named(value, f"c{place}") for place, value in enumerate(values)])
    return rows


def _without(value: exp.Expr, nulls: frozenset[str]) -> exp.Expr:
    """A value where the columns of some tables are null."""
    if isinstance(value, exp.Column):
        return exp.Null() if value.table in nulls else value.copy()
    values = [bare(each).copy() for each in (value.this, *value.expressions)]
    rest = [each for each in values if isinstance(each, exp.Column) and each.table not in nulls]
    if len(rest) < 2:
        return rest[0] if rest else exp.Null()
    return exp.Coalesce(this=rest[0], expressions=rest[1:])
