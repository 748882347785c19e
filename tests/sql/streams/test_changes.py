"""Giving a stream table another query or other options: its rows stay, and the next refresh changes what differs."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.services.postgres import Database
from tests.sql.streams.streams import Connection, assert_equal, behind, create, refresh

ALL = "select order_id, region from orders"
NORTH = "select order_id, region from orders where region = 'north'"


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.connect() as connection:
        connection.execute("create table orders (order_id int primary key, region text, amount numeric(8, 2))")
        connection.execute("create table regions (region text, name text)")
        connection.execute("insert into orders values (1, 'north', 10), (2, 'south', 20), (3, 'north', 5)")
        yield connection


def replace(connection: Connection, name: str, query: str, **options: object) -> None:
    named = "".join(f", {option} => %s" for option in options)
    connection.execute(
        f"select tide.create_or_replace_stream_table(%s, %s{named})",  # type: ignore[arg-type]
        [name, query, *options.values()],
    )


def facts(connection: Connection, *columns: str) -> tuple[object, ...] | None:
    return connection.execute(f"select {', '.join(columns)} from tide.stream").fetchone()  # type: ignore[arg-type]


def test_another_query_leaves_the_rows_until_the_next_refresh_which_changes_what_differs(connection):
    create(connection, "found", ALL)
    refresh(connection, "found")
    kept = connection.execute("select xmin::text from found where order_id = 1").fetchone()
    replace(connection, "found", NORTH)
    assert connection.execute("select count(*) from found").fetchone() == (3,)
    assert behind(connection, "found") is not None
    assert refresh(connection, "found")[:1] == ("FULL",)
    assert connection.execute("select order_id from found order by 1").fetchall() == [(1,), (3,)]
    assert connection.execute("select xmin::text from found where order_id = 1").fetchone() == kept
    connection.execute("insert into orders values (4, 'north', 1)")
    refresh(connection, "found")
    assert connection.execute("select count(*) from found").fetchone() == (3,)


def test_new_columns_come_at_the_end_and_indexes_and_rights_stay(connection):
    create(connection, "found", ALL)
    refresh(connection, "found")
    connection.execute("create index found_region on found (region)")
    replace(connection, "found", f"{ALL}".replace(" from", ', amount, region collate "C" as "Name" from'))
    refresh(connection, "found")
    rows = connection.execute('select order_id, region, amount::text, "Name" from found order by 1').fetchall()
    assert rows[0] == (1, "north", "10.00", "north")
    assert connection.execute("select to_regclass('found_region') is not null").fetchone() == (True,)


@pytest.mark.parametrize(
    "query",
    [
        "select order_id from orders",
        "select region, order_id from orders",
        "select order_id::bigint, region from orders",
    ],
)
def test_other_columns_are_refused_and_nothing_is_changed(connection, query):
    create(connection, "found", ALL)
    with pytest.raises(psycopg.errors.InvalidTableDefinition, match="has other columns") as told:
        replace(connection, "found", query)
    assert "new ones come after them" in str(told.value.diag.message_hint)
    assert facts(connection, "query") == (ALL,)
    refresh(connection, "found")


def test_other_sources_are_captured_and_those_that_are_not_read_any_more_are_not(connection):
    create(connection, "found", ALL)
    refresh(connection, "found")
    replace(connection, "found", "select 7 as order_id, region from regions")
    refresh(connection, "found")
    triggers = "select count(*) from pg_trigger where tgrelid = %s::regclass and tgname like 'tide_stream%%'"
    assert connection.execute(triggers, ["orders"]).fetchone() == (0,)
    assert connection.execute(triggers, ["regions"]).fetchone() == (4,)
    connection.execute("insert into regions values ('west', 'West')")
    assert behind(connection, "found") == "its sources changed"
    refresh(connection, "found")
    assert connection.execute("select * from found").fetchall() == [(7, "west")]


def test_the_same_query_changes_the_options_alone(connection):
    create(connection, "found", ALL, schedule="5s")
    refresh(connection, "found")
    replace(connection, "found", f"{ALL};", schedule="1m", tier="cold", diamond_consistency="NONE")
    assert behind(connection, "found") is None
    assert facts(connection, "schedule", "tier", "diamond_consistency") == ("1m", "cold", "none")
    replace(connection, "found", ALL)
    assert facts(connection, "schedule", "tier") == ("1s", "hot")


def test_one_that_does_not_exist_is_created_and_one_that_does_stays_if_asked_so(connection):
    replace(connection, "found", ALL, schedule="5s")
    connection.execute("select tide.create_stream_table_if_not_exists('public.found', %s)", [NORTH])
    connection.execute("select tide.create_stream_table_if_not_exists('other', %s, '7s')", [NORTH])
    found = connection.execute("select name, query, schedule from tide.stream order by stream_id").fetchall()
    assert found == [("public.found", ALL, "5s"), ("public.other", NORTH, "7s")]


def test_a_query_is_changed_by_alter_and_read_as_in_that_session(connection):
    create(connection, "found", ALL)
    connection.execute("create schema shop; create table shop.orders (order_id int, region text)")
    connection.execute("insert into shop.orders values (9, 'shop')")
    connection.execute("set search_path = shop, public")
    connection.execute("select tide.alter_stream_table('found', query => %s)", [ALL])
    connection.execute("set search_path = public")
    refresh(connection, "found")
    assert connection.execute("select * from found").fetchall() == [(9, "shop")]


def test_one_may_not_come_to_read_itself(connection):
    create(connection, "base", ALL)
    create(connection, "middle", "select order_id, region from base")
    create(connection, "above", "select order_id, region from middle")
    for name in ("base", "above"):
        with pytest.raises(psycopg.errors.InvalidObjectDefinition, match="would read itself"):
            connection.execute("select tide.alter_stream_table('base', query => %s)", [f"table {name}"])
    replace(connection, "middle", f"{ALL} union all table base")
    for name in ("base", "middle", "above"):
        refresh(connection, name)
    assert connection.execute("select count(*) from above").fetchone() == (6,)


def test_one_that_stops_reading_stream_tables_cannot_follow_any(connection):
    create(connection, "base", ALL)
    create(connection, "above", "table base")
    create(connection, "top", "table above")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="reads no other"):
        connection.execute("select tide.alter_stream_table('above', query => %s)", [NORTH])
    connection.execute("select tide.alter_stream_table('above', query => %s, schedule => '3s')", [NORTH])
    config = "select config from tide.pipeline where name = 'streams.public.top'"
    assert connection.execute(config).fetchone() == ({"poll_interval_ms": 1000, "follows": ["streams.public.above"]},)


def test_a_refresh_that_began_before_the_change_writes_nothing(connection, database):
    create(connection, "found", ALL)
    with database.connect() as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.autocommit = False
        other.execute("select 1 from orders")
        replace(connection, "found", NORTH)
        with pytest.raises(psycopg.errors.SerializationFailure):
            other.execute("select tide.stream_refresh('streams.public.found')")
        other.rollback()
    refresh(connection, "found")
    assert_equal(connection, "found")


def test_a_status_is_set_and_nothing_else_is_one(connection):
    create(connection, "found", ALL)
    refresh(connection, "found")
    status = "select status from tide.stream_tables()"
    connection.execute("select tide.alter_stream_table('found', status => 'suspended')")
    assert connection.execute(status).fetchone() == ("SUSPENDED",)
    connection.execute("select tide.alter_stream_table('found', status => 'ACTIVE')")
    refresh(connection, "found")
    assert connection.execute(status).fetchone() == ("ACTIVE",)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="'ERROR' cannot be set"):
        connection.execute("select tide.alter_stream_table('found', status => 'ERROR')")
