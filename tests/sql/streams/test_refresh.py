"""A stream table equals its query after each refresh, and is refreshed whenever it may not."""

import random
from collections.abc import Iterator

import psycopg
import pytest

from tests.services.postgres import Database
from tests.sql.streams.streams import Connection, assert_equal, behind, create, refresh

SOURCES = """
    create table orders (order_id int primary key, region text, amount numeric);
    create table notes (region text, note text);
    insert into orders values (1, 'north', 10), (2, 'south', 20), (3, 'north', 5);
"""
SUMS = "select region, count(*) as orders, sum(amount) as amount from orders group by region"


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.connect() as connection:
        connection.execute(SOURCES)
        yield connection


def test_it_is_filled_and_then_writes_only_what_differs(connection):
    create(connection, "sums", SUMS)
    assert behind(connection, "sums") == "it has not been computed since it was created, resumed or restored"
    assert refresh(connection, "sums") == ("FULL", 2, 0)
    assert behind(connection, "sums") is None
    assert refresh(connection, "sums")[0] == "NO_DATA"
    connection.execute("insert into orders values (4, 'south', 1)")
    assert behind(connection, "sums") == "its sources changed"
    assert refresh(connection, "sums") == ("FULL", 1, 1)
    untouched = connection.execute("select xmin::text from sums where region = 'north'").fetchone()
    connection.execute("update orders set amount = 2 where order_id = 4")
    assert refresh(connection, "sums") == ("FULL", 1, 1)
    assert connection.execute("select xmin::text from sums where region = 'north'").fetchone() == untouched


@pytest.mark.parametrize(
    "change",
    [
        "insert into orders values (9, null, 1)",
        "update orders set region = 'west' where order_id = 1",
        "delete from orders where order_id = 2",
        "truncate orders",
        "insert into orders values (1, 'x', 7) on conflict (order_id) do update set amount = excluded.amount",
        "with gone as (delete from orders where order_id = 1 returning *) insert into orders select 7 from gone",
    ],
)
def test_every_kind_of_statement_is_seen(connection, change):
    create(connection, "sums", SUMS)
    refresh(connection, "sums")
    connection.execute(change)
    assert behind(connection, "sums") == "its sources changed"
    assert refresh(connection, "sums")[0] == "FULL"


@pytest.mark.parametrize(
    "statement", ["update orders set amount = 0 where order_id = 99", "insert into notes values ('a', 'b')"]
)
def test_what_changes_no_row_that_it_reads_costs_no_refresh(connection, statement):
    create(connection, "sums", SUMS)
    refresh(connection, "sums")
    connection.execute(statement)
    assert behind(connection, "sums") is None


def test_rows_that_are_equal_are_counted(connection):
    create(connection, "regions", "select region from orders")
    assert refresh(connection, "regions") == ("FULL", 3, 0)
    connection.execute("insert into orders values (4, 'north', 0), (5, null, 0), (6, null, 0)")
    assert refresh(connection, "regions") == ("FULL", 3, 0)
    connection.execute("delete from orders where order_id in (1, 5)")
    assert refresh(connection, "regions") == ("FULL", 0, 2)


def test_a_slow_transaction_counts_when_it_commits_whatever_came_before(connection, database):
    create(connection, "sums", SUMS)
    refresh(connection, "sums")
    with database.connect() as slow:
        with slow.transaction():
            slow.execute("insert into orders values (10, 'slow', 1)")
            connection.execute("insert into orders values (11, 'fast', 1)")
            refresh(connection, "sums")
            connection.execute("select tide.stream_clean()")
            assert behind(connection, "sums") is None
        assert behind(connection, "sums") == "its sources changed"
    refresh(connection, "sums")
    assert connection.execute("select count(*) from sums where region in ('slow', 'fast')").fetchone() == (2,)


def test_a_refresh_that_began_before_another_ended_does_nothing(connection, database):
    create(connection, "sums", SUMS)
    with database.connect() as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.autocommit = False
        other.execute("select 1 from orders")
        refresh(connection, "sums")
        with pytest.raises(psycopg.errors.SerializationFailure):
            other.execute("select tide.stream_refresh('streams.public.sums')")
        other.rollback()
    assert_equal(connection, "sums")


def test_random_changes_with_savepoints_and_rollbacks(connection):
    create(connection, "sums", SUMS)
    create(connection, "pairs", "select o.order_id, n.note from orders o left join notes n using (region)")
    chance = random.Random(7)
    for round_number in range(60):
        with connection.transaction(force_rollback=chance.random() < 0.2):
            for _ in range(chance.randint(1, 4)):
                with connection.transaction(force_rollback=chance.random() < 0.3):
                    connection.execute(_change(chance))
        if chance.random() < 0.3:
            connection.execute("select tide.stream_clean()")
        for name in ("sums", "pairs"):
            reason = behind(connection, name)
            if reason is None:
                assert_equal(connection, name)
            assert refresh(connection, name)[0] == ("FULL" if reason else "NO_DATA"), round_number


def _change(chance: random.Random) -> str:
    region = chance.choice(["'north'", "'south'", "null"])
    return chance.choice(
        [
            f"insert into orders values ({chance.randint(1, 30)}, {region}, {chance.random()}) on conflict do nothing",
            f"update orders set region = {region} where order_id % 5 = {chance.randint(0, 4)}",
            f"delete from orders where order_id = {chance.randint(1, 30)}",
            f"insert into notes values ({region}, 'n')",
            f"delete from notes where region is not distinct from {region}",
            "truncate notes",
        ]
    )


def test_notes_of_changes_that_every_stream_has_seen_are_removed(connection):
    create(connection, "sums", SUMS)
    create(connection, "regions", "select region from orders")
    refresh(connection, "sums")
    refresh(connection, "regions")
    connection.execute("insert into orders values (9, 'x', 1)")
    refresh(connection, "sums")
    assert connection.execute("select tide.stream_clean()").fetchone() == (0,)
    assert behind(connection, "regions") == "its sources changed"
    refresh(connection, "regions")
    assert connection.execute("select tide.stream_clean()").fetchone() == (1,)
    assert behind(connection, "regions") is None


def test_a_stream_that_is_not_refreshed_keeps_nothing(connection):
    create(connection, "sums", SUMS)
    refresh(connection, "sums")
    connection.execute("select tide.alter_stream_table('sums', tier => 'frozen')")
    connection.execute("insert into orders values (9, 'x', 1)")
    assert connection.execute("select tide.stream_clean()").fetchone() == (1,)
    connection.execute("select tide.alter_stream_table('sums', tier => 'hot')")
    assert refresh(connection, "sums") == ("FULL", 1, 0)


def test_no_one_writes_it_but_a_refresh(connection):
    create(connection, "sums", SUMS)
    for statement in ("insert into sums values ('x', 1, 1)", "delete from sums", "truncate sums"):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="written by its refreshes alone"):
            connection.execute(statement)


def test_a_copy_of_the_database_is_computed_anew(connection):
    create(connection, "sums", SUMS)
    refresh(connection, "sums")
    connection.execute("update tide.stream_state set cluster = 'another/1'")
    assert behind(connection, "sums") == "the database is a copy"
    assert refresh(connection, "sums") == ("FULL", 0, 0)


@pytest.mark.parametrize("statement", ["truncate orders", "alter table orders alter column order_id type bigint"])
def test_a_table_that_is_written_as_a_whole_meanwhile_fails_the_refresh(connection, database, statement):
    """A snapshot from before sees none of its rows."""
    create(connection, "regions", "select region from orders")
    refresh(connection, "regions")
    connection.execute("update tide.stream_state set frontier = null")
    with database.connect() as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.autocommit = False
        other.execute("select 1")
        connection.execute(statement)
        with pytest.raises(psycopg.errors.SerializationFailure, match="was written as a whole"):
            other.execute("select tide.stream_refresh(pipeline) from tide.stream")
        other.rollback()
    assert connection.execute("select count(*) from regions").fetchone() == (3,)
    refresh(connection, "regions")


def test_many_are_looked_at_together_as_each_alone(connection):
    """The scheduler's question: one statement for each table, whatever each of its stream tables has seen."""
    for number in range(6):
        create(connection, f"some{number}", f"select region, {number} as n from orders")
        create(connection, f"notes{number}", "select note from notes", refresh_mode="FULL")
        refresh(connection, f"some{number}")
        refresh(connection, f"notes{number}")
    connection.execute("insert into orders values (4, 'west', 1)")
    connection.execute("insert into notes values ('west', 'n')")
    for number in range(3):
        refresh(connection, f"some{number}")
        refresh(connection, f"notes{number}")
    names = [name for (name,) in connection.execute("select pipeline from tide.stream order by 1")]
    expected = [f"streams.public.{name}{number}" for name in ("notes", "some") for number in (3, 4, 5)]
    ready = "select r from tide.stream_ready(%s) r order by 1"
    assert [name for (name,) in connection.execute(ready, [names])] == expected
    assert [name for name in names if connection.execute(ready, [[name]]).fetchone()] == expected
    connection.execute("alter table notes disable trigger all")
    expected = [f"streams.public.notes{number}" for number in range(6)] + expected[3:]
    assert [name for (name,) in connection.execute(ready, [names])] == expected
