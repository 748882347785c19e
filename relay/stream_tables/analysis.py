"""From a described stream table to its plan: of its query as it stands, or, if that is better, over hidden nodes."""

from relay.stream_tables.dialect import write
from relay.stream_tables.names import Names
from relay.stream_tables.nodes import Nodes
from relay.stream_tables.plan import Described, Plan, Reader, Unsupported
from relay.stream_tables.planning import plan_of
from relay.stream_tables.query import read_query


def analyse(described: Described, read: Reader) -> Plan:
    """How a stream table is refreshed. Raises Unsupported if nothing is better than its whole query each time."""
    _refuse(described)
    query = read_query(described, read)
    names = Names(described)
    names.give(query)
    if described.immediate or not described.is_ours:
        return plan_of(query, described, names.sources, lambda tree: read(write(tree)))
    plan, why = None, None
    try:
        plan = plan_of(query.copy(), described, names.sources, lambda tree: read(write(tree)))
    except Unsupported as reason:
        why = reason
    if plan and _followed(plan) == len(plan.strategies()):
        return plan
    try:
        over = Nodes(described, names.sources, read).plan(query)
    except Unsupported as reason:
        over, why = None, why or reason
    best = max((each for each in (plan, over) if each), key=_followed, default=None)
    if best is None or not _followed(best):
        raise why or Unsupported("no strategy is proven")
    return best


def _followed(plan: Plan) -> int:
    """How many sets of changed tables are followed, if only by a node."""
    return sum(strategy != "full" for strategy in plan.strategies().values())


def _refuse(described: Described) -> None:
    if described.reason:
        raise Unsupported(described.reason)
    if not described.sources:
        raise Unsupported("it reads no table")
    for each in described.columns:
        if not each.deterministic:
            raise Unsupported(f"column {each.name} has a collation by which texts that differ are equal")
    for source in described.sources:
        for each in source.columns:
            if each.name not in source.captured:
                continue
            if not each.hashable:
                raise Unsupported(f"column {each.name} of {source.name} is of type {each.type}, which has no hash")
            if each.name.startswith("__"):
                raise Unsupported(f"column {each.name} of {source.name} begins with __")
