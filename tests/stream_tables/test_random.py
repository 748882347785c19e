"""Random queries, which none of us thought of. STREAM_QUERIES=3000 STREAM_SEED=7 tries more of them."""

import os
import random

import psycopg
import pytest

from tests.stream_tables.conftest import SEED
from tests.stream_tables.grammar import Queries

pytestmark = pytest.mark.timeout(0)
QUERIES = int(os.environ.get("STREAM_QUERIES", "40"))
BATCH = 20


def test_old_rows_and_changes_are_the_rows_of_random_queries(oracle, changes):
    queries = Queries(random.Random(SEED))
    seen: dict[str, int] = {}
    for _ in range(0, QUERIES, BATCH):
        add_some(oracle, queries)
        for _ in range(3):
            changes.make(changes.random.choice([1, 3, 6]))
            assert oracle.check() == []
        for stream in oracle.streams:
            for strategy, number in stream.seen.items():
                seen[strategy] = seen.get(strategy, 0) + number
            oracle.connection.execute("select tide.drop_stream_table(%s)", [stream.described.table])
        oracle.streams.clear()
    print(seen)
    assert {"linear", "keyed"} <= set(seen)


def add_some(oracle, queries) -> None:
    """As many as a batch has of those for which there is a plan."""
    while len(oracle.streams) < BATCH:
        query = queries.query()
        try:
            stream = oracle.add(query)
        except psycopg.errors.SyntaxError as error:
            raise AssertionError(query) from error
        except psycopg.Error:
            continue  # it is not valid: an alias that is grouped, a type without that aggregate
        if stream.plan is None:
            oracle.streams.remove(stream)
            oracle.connection.execute("select tide.drop_stream_table(%s)", [stream.described.table])
