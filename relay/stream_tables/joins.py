"""FROM as joins: which side of each may be missing, and what its conditions say."""

from dataclasses import dataclass

from sqlglot import exp

from relay.stream_tables.plan import Unsupported
from relay.stream_tables.trees import conjuncts, is_group


@dataclass(frozen=True)
class Condition:
    """One condition of ON. It joins `items`; where it fails, those of `nullable` are null, or the row is gone."""

    value: exp.Expr
    items: frozenset[str]
    nullable: frozenset[str]


@dataclass(frozen=True)
class Joins:
    """The joins of a SELECT. `nullable` are the items that are null in some rows."""

    conditions: tuple[Condition, ...]
    nullable: frozenset[str]
    outer: tuple[frozenset[str], ...]

    def holds(self, condition: Condition) -> bool:
        """Whether it is true of every row of FROM."""
        return not condition.nullable and not any(condition.items <= side for side in self.outer)


def joins_of(select: exp.Select) -> Joins:
    """Raises Unsupported of a FULL JOIN: see `full_joins`."""
    conditions: list[Condition] = []
    outer: list[frozenset[str]] = []
    clause = select.args.get("from_")
    if clause:
        _chain(clause.this, select.args.get("joins") or [], conditions, outer)
    return Joins(tuple(conditions), frozenset().union(*outer), tuple(outer))


def _chain(
    first: exp.Expr, joins: list[exp.Join], conditions: list[Condition], outer: list[frozenset[str]]
) -> frozenset[str]:
    left = _chain(first.this, [], conditions, outer) if is_group(first) else frozenset({first.alias_or_name})
    for join in [*(first.args.get("joins") or []), *joins]:
        right = _chain(join.this, [], conditions, outer)
        if join.side == "FULL":
            raise Unsupported("it has a FULL JOIN")
        nullable = {"LEFT": right, "RIGHT": left}.get(join.side, frozenset())
        if nullable:
            outer.append(nullable)
        conditions += [Condition(each, left | right, nullable) for each in conjuncts(join.args.get("on"))]
        left |= right
    return left
