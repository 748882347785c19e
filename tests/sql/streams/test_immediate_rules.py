"""Mode IMMEDIATE: what is refused, who may do what, and what fails a writer."""

import psycopg
import pytest
from psycopg import IsolationLevel

from tests.sql.streams.analysed import analyse_and_keep
from tests.sql.streams.maintained import NAMED, SUMS, TABLES, hand_over, maintain
from tests.sql.streams.streams import assert_equal, create, pipeline, refresh

SHARES = "select order_id, 100 / amount as share from orders"


@pytest.fixture
def connection(database):
    with database.connect() as connection:
        connection.execute(TABLES)
        yield connection


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("select region, now() as at from orders", "it calls now"),
        ("select * from orders where current_date > '2020-01-01'", "current_date"),
        ("select o from orders o", "whole rows"),
    ],
)
def test_what_no_write_tells_is_refused_when_it_is_created(connection, query, why):
    with pytest.raises(
        psycopg.errors.FeatureNotSupported, match=f'stream table "public.found" cannot be IMMEDIATE: .*{why}'
    ) as told:
        create(connection, "found", query, schedule="immediate")
    assert "schedule => '1s'" in str(told.value.diag.message_hint)


@pytest.mark.parametrize(
    "query",
    [
        "select o.region, count(*) as n from orders o join customers c on c.customer_id = o.customer_id group by 1",
        "select max(amount) as most from orders",
        "select order_id from orders union select customer_id from customers",
        "select a.order_id from orders a join orders b on b.amount = a.amount",
    ],
)
def test_a_shape_that_writers_cannot_maintain_is_an_error_that_says_why(connection, query):
    create(connection, "found", query, refresh_mode="IMMEDIATE")
    analyse_and_keep(connection, "found")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match=r'"public\.found" cannot be IMMEDIATE'):
        refresh(connection, "found")
    [(reason,)] = connection.execute("select downgrade_reason from tide.explain_refresh_mode('found')").fetchall()
    assert reason
    connection.execute("select tide.alter_stream_table('found', status => 'SUSPENDED')")
    connection.execute("select tide.alter_stream_table('found', refresh_mode => 'AUTO', status => 'ACTIVE')")
    assert connection.execute("select schedule, refresh_mode from tide.stream_tables()").fetchall() == [("1s", "AUTO")]
    refresh(connection, "found")


def test_a_transaction_that_does_not_see_the_last_maintenance_runs_again(connection, database):
    maintain(connection, "named", NAMED)
    with database.connect(autocommit=False) as late:
        late.isolation_level = IsolationLevel.REPEATABLE_READ
        late.execute("select count(*) from customers")
        connection.execute("update customers set name = 'ben' where customer_id = 2")
        with pytest.raises(psycopg.errors.SerializationFailure, match=r'"public\.named" was changed by') as told:
            late.execute("insert into orders values (9, 'n', 1, 2)")
        assert told.value.diag.message_hint == "Run the transaction again."
        late.rollback()
        late.execute("insert into orders values (9, 'n', 1, 2)")
        late.commit()
    assert_equal(connection, "named")


def test_a_snapshot_from_before_the_triggers_is_refused_too(connection, database):
    create(connection, "named", NAMED, refresh_mode="IMMEDIATE")
    with database.connect(autocommit=False) as late:
        late.isolation_level = IsolationLevel.REPEATABLE_READ
        late.execute("select count(*) from customers")
        hand_over(connection, "named")
        with pytest.raises(psycopg.errors.SerializationFailure):
            late.execute("insert into orders values (9, 'n', 1, 2)")
    assert_equal(connection, "named")


def test_what_cannot_be_maintained_fails_the_writer_by_the_name_of_the_stream_table(connection):
    maintain(connection, "shares", SHARES)
    maintain(connection, "sums", SUMS)
    with pytest.raises(
        psycopg.errors.DivisionByZero, match=r'"public\.shares" cannot follow this change: division by zero'
    ):
        connection.execute("insert into orders values (9, 'n', 0, 2)")
    with pytest.raises(psycopg.errors.DataError, match=r'"public\.sums" cannot follow this change: a sum is NaN'):
        connection.execute("update orders set amount = 'NaN' where order_id = 1")
    for name in ("shares", "sums"):
        assert_equal(connection, name)


def test_writers_need_no_right_but_to_write(connection, database):
    maintain(connection, "sums", SUMS)
    maintain(connection, "named", NAMED)
    with database.admin() as admin:
        admin.execute("""
            create role writer_of_orders;
            grant insert, update, delete, truncate on orders to writer_of_orders;
            grant select (order_id) on orders to writer_of_orders""")
        try:
            admin.execute("set role writer_of_orders")
            admin.execute("insert into orders values (9, 'n', 1, 2)")
            admin.execute("update orders set region = 'w' where order_id = 9")
            admin.execute("delete from orders where order_id = 1")
            for statement in ("select * from sums", "delete from sums", "select tide.stream_immediate_whole(1)"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    admin.execute(statement)
        finally:
            admin.execute("reset role; drop owned by writer_of_orders; drop role writer_of_orders")
    for name in ("sums", "named"):
        assert_equal(connection, name)


def test_one_that_belongs_to_others_is_not_maintained_with_our_rights(connection, database):
    create(connection, "sums", SUMS, refresh_mode="IMMEDIATE")
    assert analyse_and_keep(connection, "sums") is None
    with database.admin() as admin:
        admin.execute("alter table sums owner to postgres")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="it belongs to postgres"):
        connection.execute("select tide.stream_immediate_begin(%s)", [pipeline(connection, "sums")])


def test_a_writer_keeps_its_settings_and_limits_and_the_query_has_those_of_its_creation(connection):
    connection.execute("create table events (id int primary key, at timestamptz); set timezone = 'Asia/Tokyo'")
    maintain(connection, "hours", "select to_char(at, 'YYYY-MM-DD HH24') as hour, count(*) as n from events group by 1")
    connection.execute("set timezone = 'UTC'")
    with connection.transaction():
        connection.execute("insert into events values (1, '2026-03-01 12:00+00'), (2, '2026-03-01 20:00+00')")
        assert connection.execute("select hour from hours order by 1").fetchall() == [
            ("2026-03-01 21",),
            ("2026-03-02 05",),
        ]
        with (
            pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="its refreshes"),
            connection.transaction(),
        ):
            connection.execute("delete from hours")
        connection.execute("truncate events")
        assert connection.execute("show timezone").fetchall() == [("UTC",)]
        assert connection.execute("show search_path").fetchall() == [('"$user", public',)]
    assert connection.execute("select * from hours").fetchall() == []
