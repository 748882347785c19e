"""A snapshot has the rows of one refresh. A stream table that is restored from it goes on from there, or is computed:
right at the end in each case."""

import random
from collections.abc import Iterator

import pytest

from tests.sql.streams.analysed import analyse_and_keep
from tests.sql.streams.snapshots import (
    CHANGED,
    COMPUTED,
    ELSEWHERE,
    REMOVED,
    SOURCES,
    SUMS,
    change,
    clean,
    restore,
    same,
    take,
)
from tests.sql.streams.streams import Connection, assert_equal, behind, create, refresh


@pytest.fixture
def connection(database) -> Iterator[Connection]:
    with database.connect() as connection:
        connection.execute(SOURCES)
        create(connection, "sums", SUMS)
        refresh(connection, "sums")
        yield connection


def test_it_goes_on_from_the_snapshot_while_every_change_since_is_there(connection):
    assert take(connection) == "public.before"
    change(connection)
    refresh(connection, "sums")
    assert not same(connection, "sums", "before")
    assert restore(connection) is None
    assert same(connection, "sums", "before")
    assert behind(connection, "sums") == CHANGED
    refresh(connection, "sums")
    assert_equal(connection, "sums")


def test_without_a_change_since_it_is_equal_at_once(connection):
    take(connection)
    assert restore(connection) is None
    assert behind(connection, "sums") is None
    assert_equal(connection, "sums")


def test_where_changes_since_were_removed_everything_is_computed(connection):
    take(connection)
    change(connection)
    refresh(connection, "sums")
    clean(connection)
    assert restore(connection) == REMOVED
    assert same(connection, "sums", "before")
    assert behind(connection, "sums") == COMPUTED
    assert refresh(connection, "sums")[0] == "FULL"
    assert_equal(connection, "sums")


def test_what_was_removed_before_it_was_taken_is_not_missed(connection):
    change(connection)
    refresh(connection, "sums")
    take(connection)
    clean(connection)
    assert connection.execute("select count(*) from tide.stream_cleaned").fetchone() == (1,)
    change(connection)
    refresh(connection, "sums")
    assert restore(connection) is None
    refresh(connection, "sums")
    assert_equal(connection, "sums")


def test_what_was_removed_of_other_tables_does_not_count(connection):
    connection.execute("create table others (id int)")
    create(connection, "rest", "select id from others")
    refresh(connection, "rest")
    take(connection)
    connection.execute("insert into others values (1)")
    refresh(connection, "rest")
    change(connection)
    clean(connection)
    assert restore(connection) is None


def test_what_was_removed_while_no_one_read_it_counts(connection):
    take(connection)
    connection.execute("select tide.alter_stream_table('sums', tier => 'frozen')")
    change(connection)
    clean(connection)
    connection.execute("select tide.alter_stream_table('sums', tier => 'hot')")
    refresh(connection, "sums")
    assert restore(connection) == REMOVED
    refresh(connection, "sums")
    assert_equal(connection, "sums")


def test_a_transaction_that_was_open_then_counts_once_it_has_ended(connection, database):
    with database.connect() as slow, slow.transaction():
        slow.execute("insert into orders values (10, 'slow', 1)")
        refresh(connection, "sums")
        take(connection)
        change(connection)
        refresh(connection, "sums")
    assert restore(connection) is None
    assert behind(connection, "sums") == CHANGED
    refresh(connection, "sums")
    assert_equal(connection, "sums")


def test_a_change_of_then_that_was_not_visible_yet_and_is_removed_since_counts(connection, database):
    """Its id is lower than that of changes which the snapshot shows."""
    with database.connect() as slow, slow.transaction():
        slow.execute("insert into orders values (10, 'slow', 1)")
        change(connection)
        refresh(connection, "sums")
        take(connection)
    refresh(connection, "sums")
    clean(connection)
    assert restore(connection) == REMOVED
    refresh(connection, "sums")
    assert_equal(connection, "sums")


def test_only_what_differs_is_written(connection):
    take(connection)
    change(connection)
    refresh(connection, "sums")
    untouched = "select xmin::text from sums where region = 'south'"
    before = connection.execute(untouched).fetchone()
    restore(connection)
    assert connection.execute(untouched).fetchone() == before


def test_those_that_read_it_follow(connection):
    create(connection, "large", "select region from sums where amount > 50")
    refresh(connection, "large")
    take(connection)
    change(connection)
    refresh(connection, "sums")
    refresh(connection, "large")
    restore(connection)
    assert behind(connection, "large") == CHANGED
    refresh(connection, "large")
    assert_equal(connection, "large")
    assert connection.execute("select * from large").fetchall() == []


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("select tide.alter_stream_table('sums', tier => 'frozen')", "the stream table is not refreshed now"),
        ("alter table orders disable trigger all; alter table orders enable trigger all",
         "the capture of its sources was changed"),
        ("update tide.stream_snapshot set cluster = 'another/1'", "the database is a copy"),
        ("update tide.stream_snapshot set frontier = '900000000:900000000:'", "the database is a copy"),
        ("alter table orders rename to sales", "the query was changed"),
        ("create table tide_stream.s_1 (n bigint)", "the state of its aggregates was not kept with it"),
        ("delete from tide.stream_snapshot", ELSEWHERE),
    ],
)  # fmt: skip
def test_a_frontier_that_is_not_sure_is_not_used(connection, statement, why):
    take(connection)
    change(connection)
    refresh(connection, "sums")
    connection.execute(statement)
    assert restore(connection) == why
    assert same(connection, "sums", "before")
    assert behind(connection, "sums") == COMPUTED
    connection.execute("drop table if exists tide_stream.s_1")
    refresh(connection, "sums")
    assert_equal(connection, "sums")


def test_the_snapshot_of_another_stream_table_gives_rows_and_no_frontier(connection):
    create(connection, "twin", SUMS)
    refresh(connection, "twin")
    take(connection, name="twin")
    change(connection)
    refresh(connection, "sums")
    assert restore(connection) == ELSEWHERE
    refresh(connection, "sums")
    assert_equal(connection, "sums")


def test_one_that_was_dropped_and_created_again_is_restored_and_computed(connection):
    take(connection)
    connection.execute("select tide.drop_stream_table('sums')")
    change(connection)
    create(connection, "sums", SUMS)
    assert restore(connection) is not None
    assert same(connection, "sums", "before")
    refresh(connection, "sums")
    assert_equal(connection, "sums")


@pytest.mark.parametrize("analysed", [False, True], ids=["rows", "sums"])
def test_random_snapshots_and_restores_are_right_at_the_end(connection, database, analysed):
    chance = random.Random(11)
    if analysed:
        analyse_and_keep(connection, "sums")
    create(connection, "regions", "select region from orders")
    copies: list[str] = []
    used = 0
    with database.connect(autocommit=False) as slow:
        for number in range(200):
            what = chance.random()
            if what < 0.5:
                connection.execute(
                    chance.choice(
                        [
                            "insert into orders values (%s, 'n', 1) on conflict do nothing",
                            "update orders set amount = amount + 1 where order_id > %s",
                            "delete from orders where order_id = %s",
                        ]
                    ),
                    [chance.randint(5, 30)],
                )
            elif what < 0.6:
                slow.execute("insert into orders values (%s, 'slow', 1)", [1000 + number])
            elif what < 0.7:
                slow.commit()
            elif what < 0.8:
                refresh(connection, "regions")
                clean(connection)
            elif what < 0.9:
                copies.append(take(connection, f"public.copy_{number}"))
            elif copies:
                copy = chance.choice(copies[-4:])
                used += restore(connection, copy) is None
                assert same(connection, "sums", copy)
                if behind(connection, "sums") is None:
                    assert_equal(connection, "sums")
            if chance.random() < 0.6:
                refresh(connection, "sums")
        slow.commit()
    refresh(connection, "sums")
    assert_equal(connection, "sums")
    assert used >= 3, "some went on from a snapshot"


def test_aggregates_go_on_from_their_state_of_then(connection):
    states = "select count(*) from pg_class where relname ~ '^s_[0-9]+_[0-9a-f]{32}$'"
    analyse_and_keep(connection, "sums")
    connection.execute("update tide.stream_state set frontier = null")
    refresh(connection, "sums")
    take(connection)
    change(connection)
    assert refresh(connection, "sums")[0] == "DIFFERENTIAL"
    assert restore(connection) is None
    assert same(connection, "sums", "before")
    assert refresh(connection, "sums")[0] == "DIFFERENTIAL", "by the state of the snapshot"
    change(connection)
    assert refresh(connection, "sums")[0] == "DIFFERENTIAL"
    assert connection.execute(states).fetchone() == (1,)
    connection.execute("drop table before")
    take(connection, "public.later")
    assert connection.execute(states).fetchone() == (1,), "of a table that is gone none is kept"
    analyse_and_keep(connection, "sums")
    refresh(connection, "sums")
    assert restore(connection, "public.later") == "the state of its aggregates was not kept with it"
    assert refresh(connection, "sums")[0] == "FULL"
    take(connection, "public.last")
    connection.execute("select tide.drop_snapshot('last'), tide.drop_stream_table('sums')")
    assert connection.execute(states).fetchone() == (0,)


def test_one_snapshot_is_within_another_if_all_that_it_shows_is_shown_there(connection):
    """Judged by pg_visible_in_snapshot, id by id, for all snapshots with few ids."""
    [(wrong, within, apart)] = connection.execute("""
        with snapshots as (
            select format('10:%s:%s', ends, array_to_string(array(
                       select i from generate_series(10, ends - 1) i where open >> (i - 10) & 1 = 1), ','
                   ))::pg_snapshot as s
              from generate_series(10, 14) ends, generate_series(0, 15) open
             where open < 1 << (ends - 10)
        ), pairs as (
            select tide.snapshot_within(a.s, b.s) as found,
                   not exists (select from generate_series(8, 16) i
                                where pg_visible_in_snapshot(i::text::xid8, a.s)
                                  and not pg_visible_in_snapshot(i::text::xid8, b.s)) as truly
              from snapshots a, snapshots b
        )
        select count(*) filter (where found and not truly), count(*) filter (where found),
               count(*) filter (where not found)
          from pairs""").fetchall()
    assert wrong == 0
    assert within > 100 and apart > 100
