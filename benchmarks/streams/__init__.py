"""Stream tables: what a refresh costs, what writers pay, and how far behind many are."""

from collections.abc import Iterator

from benchmarks.figures import Effort, Figure
from benchmarks.stack import Stack
from benchmarks.streams import immediate, queries, staleness, writers
from benchmarks.streams.sets import NEXMARK, PATTERNS, TPCH

FAST = 20
"""Of the 22 queries of TPC-H, in a full run: over few rows a query takes less than to look what has changed."""


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    for each, fast in ((TPCH, FAST), (NEXMARK, None), (PATTERNS, None)):
        result = queries.measured(stack, effort, each)
        yield from queries.figures(result, each.few)
        yield from queries.summary(result, fast if effort.scale >= 1 else None)
    yield from writers.run(stack, effort)
    yield from immediate.run(stack, effort)
    yield from staleness.run(stack, effort)
