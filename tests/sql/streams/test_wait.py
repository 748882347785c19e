"""Waiting for a stream table: what was committed before the call is shown when it returns."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.services.postgres import Database
from tests.sql.streams.streams import Connection, create, refresh

COVERS = "select tide.stream_covers(%s, %s)"


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.connect() as connection:
        connection.execute("create table orders (order_id int)")
        create(connection, "found", "select order_id from orders")
        yield connection


def wait(connection: Connection, name: str = "found", timeout: str = "0.05 s") -> None:
    connection.execute("select tide.wait_for_stream_table(%s, %s)", [name, timeout])


@pytest.mark.parametrize(
    ("frontier", "since", "covers"),
    [
        ("10:10:", "10:10:", True),
        ("10:12:", "10:10:", True),
        ("9:9:", "10:10:", False),
        ("8:12:8", "10:10:", False),
        ("8:12:8", "8:10:8", True),
        ("8:12:8,11", "8:10:8", True),
        ("8:12:9", "8:12:8", False),
    ],
)
def test_a_frontier_covers_a_snapshot_if_it_shows_all_that_is_visible_there(connection, frontier, since, covers):
    assert connection.execute(COVERS, [frontier, since]).fetchone() == (covers,)


def test_it_returns_when_it_is_equal_or_shows_what_was_there_before(connection):
    refresh(connection, "found")
    wait(connection)
    connection.execute("insert into orders values (1)")
    with pytest.raises(psycopg.errors.QueryCanceled, match="does not show yet") as told:
        wait(connection)
    assert "tide.stream_tables()" in str(told.value.diag.message_hint)
    refresh(connection, "found")
    wait(connection)


def test_those_that_it_reads_are_waited_for_too(connection):
    create(connection, "above", "select count(*) as orders from found")
    refresh(connection, "found")
    refresh(connection, "above")
    connection.execute("insert into orders values (1)")
    with pytest.raises(psycopg.errors.QueryCanceled, match="found"):
        wait(connection, "above")
    refresh(connection, "found")
    with pytest.raises(psycopg.errors.QueryCanceled, match="above"):
        wait(connection, "above")
    refresh(connection, "above")
    wait(connection, "above")


@pytest.mark.parametrize(("option", "reason"), [("tier => 'frozen'", "frozen"), ("status => 'SUSPENDED'", "suspended")])
def test_one_that_is_not_refreshed_is_not_waited_for(connection, option, reason):
    refresh(connection, "found")
    connection.execute(f"select tide.alter_stream_table('found', {option})")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=f"it is {reason}"):
        wait(connection, timeout="1 hour")


def test_it_waits_in_no_transaction_that_would_not_see_it(connection):
    with connection.transaction(force_rollback=True):
        connection.execute("insert into orders values (1)")
        with pytest.raises(psycopg.errors.InvalidTransactionState, match="has written") as told:
            wait(connection)
    assert "Commit first" in str(told.value.diag.message_hint)
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with (
        pytest.raises(psycopg.errors.InvalidTransactionState, match="REPEATABLE READ does not see"),
        connection.transaction(),
    ):
        wait(connection)
