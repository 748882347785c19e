"""AUTO: what is expected to be cheaper, by what refreshes have taken; never the whole for few changes."""

import pytest

from tests.sql.streams.plans import SUMS, TABLES, Ids, keep, sums_plan
from tests.sql.streams.streams import create, refresh

ROWS = 1000


@pytest.fixture
def connection(database):
    with database.connect() as connection:
        connection.execute(TABLES)
        connection.execute(
            "insert into orders select 1000 + n, 'r' || n % 10, 1, 1 from generate_series(1, 9996) n; analyze orders"
        )
        create(connection, "found", SUMS)
        keep(connection, "found", sums_plan(Ids(connection, "found")))
        refresh(connection, "found")
        connection.execute("delete from tide.stream_history")
        yield connection


def remember(connection, action, milliseconds, *, times=3, rows=ROWS, strategy="linear"):
    """Refreshes of the past."""
    connection.execute(
        "insert into tide.stream_history (stream_id, started_at, action, strategy, source_rows, milliseconds)"
        " select stream_id, now(), %s, %s, %s, %s from tide.stream, generate_series(1, %s)",
        [action, strategy, rows, milliseconds, times],
    )


def chosen(connection, rows=ROWS):
    """Action and reason of a refresh after so many rows have come."""
    connection.execute("insert into orders select n, 'x', 1, 1 from generate_series(100001, 100000 + %s) n", [rows])
    refresh(connection, "found")
    return connection.execute(
        "select action, reason from tide.stream_history order by refresh_id desc limit 1"
    ).fetchone()


def test_without_experience_a_tenth_is_followed(connection):
    assert chosen(connection) == ("DIFFERENTIAL", "its sources changed")


def test_without_experience_a_third_is_computed(connection):
    assert chosen(connection, 3500) == ("FULL", "3500 of about 10000 rows of its sources changed")


def test_what_took_longer_than_computing_it_all_is_computed(connection):
    remember(connection, "FULL", 100)
    remember(connection, "DIFFERENTIAL", 150)
    assert chosen(connection) == ("FULL", "1000 changed rows were expected to take 150 ms, and all 100 ms")


def test_what_took_hardly_longer_is_followed(connection):
    remember(connection, "FULL", 100)
    remember(connection, "DIFFERENTIAL", 110)
    assert chosen(connection)[0] == "DIFFERENTIAL"


def test_few_changes_are_followed_whatever_was(connection):
    remember(connection, "FULL", 1)
    remember(connection, "DIFFERENTIAL", 5000, rows=9)
    assert chosen(connection, 9)[0] == "DIFFERENTIAL"


def test_small_tables_are_computed_where_that_takes_less(connection):
    remember(connection, "FULL", 11)
    remember(connection, "DIFFERENTIAL", 62, rows=270)
    assert chosen(connection, 270)[0] == "FULL"


def test_what_fewer_rows_took_is_not_multiplied(connection):
    remember(connection, "FULL", 173)
    remember(connection, "DIFFERENTIAL", 72, rows=170, times=20)
    assert chosen(connection, 1600)[0] == "DIFFERENTIAL"


def test_numbers_of_rows_that_differ_tell_a_floor_and_a_slope(connection):
    remember(connection, "FULL", 50)
    remember(connection, "DIFFERENTIAL", 20, rows=100)
    remember(connection, "DIFFERENTIAL", 35, rows=400)
    assert chosen(connection) == ("FULL", "1000 changed rows were expected to take 65 ms, and all 50 ms")


@pytest.mark.parametrize("other", [{"rows": 50_000}, {"strategy": "keyed"}, {"times": 2}])
def test_refreshes_of_another_order_or_strategy_or_too_few_tell_nothing(connection, other):
    remember(connection, "FULL", 1)
    remember(connection, "DIFFERENTIAL", 5000, **other)
    assert chosen(connection)[0] == "DIFFERENTIAL"


def test_after_twenty_times_the_other_way_is_tried(connection):
    remember(connection, "DIFFERENTIAL", 5000)
    remember(connection, "FULL", 1, times=20)
    assert chosen(connection)[0] == "DIFFERENTIAL"


def test_after_nineteen_times_it_is_not(connection):
    remember(connection, "DIFFERENTIAL", 5000)
    remember(connection, "FULL", 1, times=19)
    assert chosen(connection)[0] == "FULL"


def test_mode_differential_follows_whatever_it_takes(connection):
    connection.execute("select tide.alter_stream_table('found', refresh_mode => 'DIFFERENTIAL')")
    remember(connection, "FULL", 1)
    remember(connection, "DIFFERENTIAL", 5000)
    assert chosen(connection, 4000)[0] == "DIFFERENTIAL"
