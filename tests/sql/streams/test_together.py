"""Analysis and refresh together: every stream table equals its query after each refresh, whatever changed.

STREAM_QUERIES and STREAM_SEED try more, and other, random queries.
"""

import os
import random

import psycopg
import pytest

from tests.sql.streams.analysed import analyse_and_keep
from tests.sql.streams.streams import Connection, create, refresh
from tests.stream_tables.grammar import Queries
from tests.stream_tables.shapes import shapes
from tests.stream_tables.tables import TABLES, Changes

pytestmark = pytest.mark.timeout(0)
SEED, RANDOM_QUERIES, BATCH = int(os.environ.get("STREAM_SEED", "1")), int(os.environ.get("STREAM_QUERIES", "20")), 20
FAILED = """
    select line.query, h.reason from tide.stream_history h join tide.stream line using (stream_id)
     where h.reason like 'the incremental refresh failed%' and h.reason not like '%NaN%'
"""
ACTIONS = "select action, count(*) from tide.stream_history group by 1"


@pytest.fixture
def connection(database):
    with database.connect() as connection:
        connection.execute("set client_min_messages = warning")
        connection.execute(TABLES)
        yield connection


def follow(connection: Connection, changes: Changes, names: list[str], rounds: int) -> None:
    """Refreshes all after some changes, each judged by its query; then a whole computation finds nothing to write."""
    for name in names:
        refresh(connection, name)
    for number in range(rounds):
        changes.make(150 if number == 1 else changes.random.choice([1, 2, 10]))
        for name in names:
            refresh(connection, name)
        connection.execute("select tide.stream_clean()")
    failed = connection.execute(FAILED).fetchall()
    assert failed == []
    connection.execute("delete from tide.stream_history where action <> 'DIFFERENTIAL'")
    connection.execute("update tide.stream_state set frontier = null")
    for name in names:
        assert refresh(connection, name) == ("FULL", 0, 0), name
    assert connection.execute("select sum(rows_updated) from tide.stream_history where action = 'FULL'").fetchone() == (
        0,
    )


def refresh_each(connection: Connection, queries: list[str]) -> list[str]:
    """Stream tables of those queries that PostgreSQL accepts and the analysis has a plan for."""
    made = []
    for number, query in enumerate(queries):
        name = f"found_{number}"
        try:
            create(connection, name, query, refresh_mode="DIFFERENTIAL")
        except psycopg.Error:
            continue  # it is not valid: an alias that is grouped, a type without that aggregate
        if analyse_and_keep(connection, name) is None:
            made.append(name)
        else:
            connection.execute("select tide.drop_stream_table(%s)", [name])
    return made


def test_every_shape_of_a_query_is_followed(connection):
    changes = Changes(connection, SEED)
    changes.make(80)
    names = refresh_each(connection, [shape.query for shape in shapes()])
    assert len(names) > 80
    follow(connection, changes, names, 4)
    actions = dict(connection.execute(ACTIONS).fetchall())
    assert actions["DIFFERENTIAL"] > len(names)


def test_random_queries_are_followed(connection):
    changes, queries = Changes(connection, SEED), Queries(random.Random(SEED))
    changes.make(80)
    for _ in range(0, RANDOM_QUERIES, BATCH):
        names = refresh_each(connection, [queries.query() for _ in range(BATCH)])
        follow(connection, changes, names, 4)
        for name in names:
            connection.execute("select tide.drop_stream_table(%s)", [name])
