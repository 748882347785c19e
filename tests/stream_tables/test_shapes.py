"""Each shape of a query has the strategies that `shapes.sql` says, and they yield what the query yields.

STREAM_CYCLES=400 STREAM_SEED=7 runs it for longer, with other changes.
"""

import os
from dataclasses import replace

import pytest

from relay.stream_tables import Change
from tests.stream_tables.shapes import shapes, summary

pytestmark = pytest.mark.timeout(0)  # it takes as long as its cycles, and making the stream tables a while
CYCLES = int(os.environ.get("STREAM_CYCLES", "6"))


@pytest.fixture(scope="module")
def streams(oracle, changes):
    return [oracle.add(shape.query) for shape in shapes()]


def test_old_rows_and_changes_are_the_rows_of_the_query(oracle, changes, streams):
    for _ in range(CYCLES):
        changes.make(changes.random.choice([1, 3, 6, 12]))
        assert oracle.check() == []
    seen = {strategy for stream in streams for strategy in stream.seen}
    assert {"linear", "keyed", "two states", "groups", "full"} <= seen


def test_a_shape_has_its_strategy_for_each_set_of_changed_sources(streams):
    said = {shape.query: shape.expected for shape in shapes()}
    assert {stream.query: summary(stream) for stream in streams} == said


def test_every_text_can_be_kept_as_a_view(oracle, streams):
    """What stands for a net delta and for the state is found in `tide_stream`, so that it may be replaced."""
    connection = oracle.connection
    sources = {source.oid: source for stream in streams for source in stream.described.sources}
    with connection.transaction(force_rollback=True):
        for oid, source in sources.items():
            connection.execute(f"drop view if exists tide_stream.d_{oid} cascade")
            connection.execute(f"create view tide_stream.d_{oid} as select *, 1::bigint as __w from {source.name}")
        connection.execute("set local search_path = pg_catalog, pg_temp, tide_stream")
        for stream in filter(lambda stream: stream.plan, streams):
            for node in stream.nodes:
                connection.execute(
                    f"create view tide_stream.d_n{node.number} as select *, 1::bigint as __w from {node.table}"
                )
            for text in [text for part in [*stream.nodes, stream.itself] for text in texts(part.plan)]:
                connection.execute(f"create temp view kept as {text}")
                [(kept,)] = connection.execute("select pg_get_viewdef('kept'::regclass)").fetchall()
                assert "tide_stream." not in kept
                connection.execute("drop view kept")


def texts(plan):
    yield from filter(None, [plan.out, plan.whole, *(change.text for change in plan.changes().values())])


@pytest.mark.parametrize(
    "query", ["select id, score from people", "select team, count(*) as n from people group by team"]
)
def test_the_oracle_notices_a_change_that_is_missing(oracle, changes, query):
    stream = oracle.add(query)
    plan = stream.plan

    def without(changed: frozenset[int]) -> Change:
        change = plan.change(changed)
        return replace(change, text=f"select * from ({change.text}) c limit 0")

    stream.plan = replace(plan, _change=without)
    try:
        oracle.connection.execute("insert into people select max(id) + 1, 3, 'Bern', 4, now() from people")
        wrong = oracle.check()
    finally:
        oracle.streams.remove(stream)
    assert wrong
    assert all(query in each for each in wrong)
