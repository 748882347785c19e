"""The queries of `shapes.sql`, and what the analysis makes of each, in a line."""

from dataclasses import dataclass

from relay.stream_tables import Plan
from tests.paths import ROOT
from tests.stream_tables.oracle import Stream

FILE = ROOT / "tests" / "stream_tables" / "shapes.sql"


@dataclass(frozen=True)
class Shape:
    """A query, and the line that `summary` has to make of it."""

    query: str
    expected: str


def shapes() -> list[Shape]:
    """A query is followed by its line, behind `-->`. Other comments are for the reader."""
    found: list[Shape] = []
    lines: list[str] = []
    for line in FILE.read_text().splitlines():
        if line.startswith("--> "):
            found.append(Shape(" ".join(lines), line.removeprefix("--> ")))
            lines = []
        elif line and not line.startswith("--"):
            lines.append(line.strip())
    return found


def summary(stream: Stream) -> str:
    """Kind and key, then the strategy for each set of changed sources."""
    plan = stream.plan
    if plan is None:
        return f"full: {stream.reason}"
    names = {source.oid: source.name.split(".")[1] for source in stream.described.sources}
    strategies = {
        "+".join(sorted(names[oid] for oid in some)): strategy for some, strategy in plan.strategies().items()
    }
    each = sorted(strategies.items(), key=lambda item: (item[0].count("+"), item[0]))
    said = ", ".join(f"{some} {strategy}" for some, strategy in each)
    if len(set(strategies.values())) == 1:
        said = f"{each[0][1]}"
    more = "".join(f"; node of {node.plan.kind}, {_key(node.plan)}" for node in plan.nodes)
    more += "".join(f"; index on {', '.join(columns)}" for columns in plan.indexes)
    more += "".join(f"; by form of {', '.join(columns)}" for columns in plan.exact.values())
    return f"{plan.kind}, {_key(plan)}: {said}{more}"


def _key(plan: Plan) -> str:
    if plan.key is None:
        return "rows may repeat"
    return f"by {', '.join(plan.key)}" if plan.key else "one row"
