"""Incremental refreshes, by plans of every kind: each equals the query, and writes only what differs."""

import random

import psycopg
import pytest

from tests.sql.streams.plans import FIRST, JOINED, LEFT, PLANS, SUMS, TABLES, TOTAL, Ids, change, keep
from tests.sql.streams.streams import behind, create, refresh


@pytest.fixture
def connection(database):
    with database.connect() as connection:
        connection.execute(TABLES)
        yield connection


def planned(connection, query, **options):
    """A stream table `found` with its plan, filled."""
    create(connection, "found", query, **options)
    keep(connection, "found", PLANS[query](Ids(connection, "found")))
    refresh(connection, "found")


def last(connection, columns="action, strategy, source_rows, rows_inserted, rows_updated, rows_deleted"):
    """What the newest refresh was."""
    return connection.execute(f"select {columns} from tide.stream_history order by refresh_id desc limit 1").fetchone()


def effective(connection):
    return connection.execute("select effective_mode, why_full from tide.stream_tables()").fetchone()


@pytest.mark.parametrize(
    ("query", "statement", "written"),
    [
        (SUMS, "insert into orders values (9, 'west', 1, 1)", ("linear", 1, 1, 0, 0)),
        (SUMS, "insert into orders values (9, 'north', 1, 1)", ("linear", 1, 0, 1, 0)),
        (SUMS, "insert into orders values (9, null, 1, 1)", ("linear", 1, 0, 1, 0)),
        (SUMS, "delete from orders where region = 'south'", ("linear", 1, 0, 0, 1)),
        (SUMS, "delete from orders", ("linear", 4, 0, 0, 3)),
        (SUMS, "update orders set region = 'east' where order_id = 2", ("linear", 2, 1, 0, 1)),
        (SUMS, "update orders set amount = null where order_id = 2", ("linear", 2, 0, 1, 0)),
        (TOTAL, "insert into orders values (9, 'west', 1, 1)", ("linear", 1, 0, 1, 0)),
        (TOTAL, "delete from orders", ("linear", 4, 0, 1, 0)),
        (JOINED, "insert into orders values (8, 'north', 1, 1), (9, 'north', 1, 1)", ("linear", 2, 2, 0, 0)),
        (JOINED, "update customers set name = 'eve' where customer_id = 1", ("linear", 2, 2, 0, 2)),
        (JOINED, "delete from orders where order_id = 4", ("linear", 1, 0, 0, 1)),
        (LEFT, "delete from orders where order_id = 2", ("keyed", 1, 1, 0, 1)),
        (LEFT, "update customers set name = 'eve' where customer_id = 1", ("keyed", 2, 0, 2, 0)),
        (LEFT, "insert into customers values (3, 'eve')", ("keyed", 1, 1, 0, 0)),
        (FIRST, "delete from orders where order_id = 1", ("keyed", 1, 0, 1, 0)),
        (FIRST, "update orders set region = null where order_id = 1", ("keyed", 2, 0, 2, 0)),
        (FIRST, "delete from orders where region is null", ("keyed", 1, 0, 0, 1)),
    ],
)
def test_a_change_is_followed_and_only_what_differs_is_written(connection, query, statement, written):
    planned(connection, query)
    connection.execute(statement)
    assert behind(connection, "found") == "its sources changed"
    refresh(connection, "found")
    assert last(connection) == ("DIFFERENTIAL", *written)
    assert behind(connection, "found") is None
    assert effective(connection) == ("DIFFERENTIAL", None)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("query", PLANS)
def test_random_changes_of_every_kind(connection, query, large):
    planned(connection, query, refresh_mode="DIFFERENTIAL")
    chance = random.Random(11)
    for round_number in range(25):
        with connection.transaction(force_rollback=chance.random() < 0.1):
            for _ in range(chance.randint(1, 4)):
                with connection.transaction(force_rollback=chance.random() < 0.2):
                    connection.execute(_change(chance, 400 if large and round_number % 5 == 2 else 1))
        if chance.random() < 0.3:
            connection.execute("select tide.stream_clean()")
        refresh(connection, "found")
    actions = dict(connection.execute("select action, count(*) from tide.stream_history group by 1").fetchall())
    assert actions["FULL"] == 1
    assert actions["DIFFERENTIAL"] > 10
    # What it writes for a whole computation is nothing: state and rows are right.
    connection.execute("update tide.stream_state set frontier = null")
    assert refresh(connection, "found") == ("FULL", 0, 0)
    assert last(connection, "rows_updated") == (0,)


def _change(chance, rows):
    region, customer = chance.choice(["'north'", "'south'", "null"]), chance.choice([1, 2, 3, "null"])
    number = chance.randint(1, 30) * 1000
    return chance.choice(
        [
            (
                f"insert into orders select {number} + n, {region}, {chance.randint(0, 3)}.50, {customer}"
                f" from generate_series(1, {rows}) n on conflict (order_id) do update set region = excluded.region"
            ),
            f"update orders set region = {region} where order_id % 5 = {chance.randint(0, 4)}",
            f"update orders set customer_id = {customer}, amount = null where order_id % 5 = {chance.randint(0, 4)}",
            (
                "update orders set order_id = order_id + 100000 where order_id % 7 ="
                f" {chance.randint(0, 6)} and order_id < 100000"
            ),
            f"delete from orders where order_id % 9 = {chance.randint(0, 8)}",
            f"insert into customers values ({chance.randint(1, 4)}, 'n{chance.randint(1, 3)}') on conflict do nothing",
            f"update customers set name = 'x' where customer_id = {chance.randint(1, 4)}",
            f"delete from customers where customer_id = {chance.randint(1, 4)}",
        ]
    )


def test_changes_that_come_to_nothing_are_no_refresh(connection):
    planned(connection, SUMS)
    connection.execute("insert into orders values (9, 'x', 1)")
    connection.execute("delete from orders where order_id = 9")
    connection.execute("update orders set customer_id = 2 where order_id = 1")
    assert refresh(connection, "found")[0] == "NO_DATA"
    assert behind(connection, "found") is None


def test_a_table_of_which_only_the_number_of_rows_is_read(connection):
    connection.execute("create table ticks (at timestamptz)")
    create(connection, "found", "select count(*) as n from ticks")
    [(source, number)] = connection.execute("select 'ticks'::regclass::oid, stream_id from tide.stream").fetchall()
    linear = change(
        [source], "linear", "state", f'select coalesce(sum("__w"), 0)::bigint as n from tide_stream.d_{source}'
    )
    whole = "select count(*) as n from public.ticks"
    plan = {"version": 1, "kind": "state", "key": [], "groups": 0, "fields": [], "whole": whole, "changes": [linear]}
    keep(connection, "found", {**plan, "out": f"select n from tide_stream.s_{number}", "indexes": []})
    refresh(connection, "found")
    connection.execute("insert into ticks select now() from generate_series(1, 3)")
    refresh(connection, "found")
    connection.execute("update ticks set at = now()")
    assert refresh(connection, "found")[0] == "NO_DATA"
    assert connection.execute("select n from found").fetchone() == (3,)


def test_triggers_of_the_table_see_updates_as_updates_and_their_own_names(connection):
    planned(connection, SUMS)
    connection.execute("""
        create table seen (what text, region text);
        create function see() returns trigger language plpgsql as
        'begin insert into seen values (tg_op, new.region); return null; end';
        create trigger see after insert or update or delete on found for each row execute function see();
    """)
    connection.execute("insert into orders values (9, 'north', 1), (10, 'west', 1)")
    refresh(connection, "found")
    assert sorted(connection.execute("select * from seen").fetchall()) == [("INSERT", "west"), ("UPDATE", "north")]


@pytest.mark.parametrize("amount", ["NaN", "Infinity"])
def test_a_sum_that_cannot_be_added_to_is_computed(connection, amount):
    planned(connection, SUMS)
    connection.execute("insert into orders values (9, 'north', %s, 1)", [amount])
    refresh(connection, "found")
    reason = "the incremental refresh failed: a sum is NaN or infinite, or a count is below zero"
    assert last(connection, "action, reason") == ("FULL", reason)
    connection.execute("delete from orders where order_id = 9")
    refresh(connection, "found")
    assert last(connection, "action, reason") == ("FULL", reason)
    connection.execute("insert into orders values (9, 'north', 1, 1)")
    refresh(connection, "found")
    assert last(connection, "action") == ("DIFFERENTIAL",)


FULL = [
    ("truncate customers", "a source was truncated, or changed in another way that no row tells"),
    ("alter table orders rename column amount to price", "the capture of its sources was changed"),
    (
        "create unique index on orders (region, order_id)",
        "its sources are not what they were when its query was analysed",
    ),
    ("select tide.alter_stream_table('found', refresh_mode => 'FULL')", "the capture of its sources was changed"),
    ("update tide.stream_plan set filled = false", "the state of its aggregates has to be computed first"),
]


@pytest.mark.parametrize(("statement", "reason"), FULL)
def test_what_no_rows_tell_is_computed_and_says_why(connection, statement, reason):
    connection.execute("delete from orders where customer_id is null")
    planned(connection, LEFT)
    connection.execute(statement)
    connection.execute("insert into orders values (9, 'x', 1, 1)")
    connection.execute("update customers set name = 'y' where customer_id = 1")
    refresh(connection, "found")
    assert last(connection, "action, reason") == ("FULL", reason)


def test_a_table_that_lost_rows_is_computed(connection):
    planned(connection, SUMS)
    connection.execute("select set_config('tide.refreshing', 'found'::regclass::oid::text, false)")
    connection.execute("delete from found where region = 'north'")
    connection.execute("insert into orders values (9, 'north', 1, 1)")
    refresh(connection, "found")
    reason = "the incremental refresh failed: the table did not hold the rows that were to be changed"
    assert last(connection, "action, reason") == ("FULL", reason)


def test_a_renamed_column_is_followed_by_what_is_kept(connection):
    planned(connection, SUMS)
    connection.execute("alter table orders rename column amount to price")
    connection.execute("select tide.stream_prepare(pipeline, 1) from tide.stream")
    refresh(connection, "found")
    assert last(connection, "action, reason") == ("FULL", "the capture of its sources was changed")
    connection.execute("insert into orders (order_id, region, price) values (9, 'x', 1)")
    refresh(connection, "found")
    assert last(connection, "action") == ("DIFFERENTIAL",)


def test_a_set_of_sources_that_was_not_foreseen_is_named_and_computed(connection):
    create(connection, "found", JOINED)
    ids = Ids(connection, "found")
    plan = PLANS[JOINED](ids)
    both = plan["changes"].pop()
    keep(connection, "found", plan)
    refresh(connection, "found")
    connection.execute("insert into orders values (9, 'x', 1, 3)")
    connection.execute("insert into customers values (3, 'eve')")
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction():
        found = connection.execute(
            "select action, missing from tide.stream_refresh((select pipeline from tide.stream))"
        ).fetchone()
    connection.isolation_level = None
    assert found == ("FULL", sorted([ids.orders, ids.customers]))
    connection.execute(
        "select tide.stream_keep_change((select pipeline from tide.stream), %s, 'linear', 'rows', %s)",
        [both["sources"], both["text"]],
    )
    connection.execute("delete from orders where order_id = 9")
    connection.execute("delete from customers where customer_id = 3")
    refresh(connection, "found")
    assert last(connection, "action") == ("DIFFERENTIAL",)


def test_a_transaction_that_changed_a_source_itself_is_counted_once(connection):
    planned(connection, SUMS)
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction():
        connection.execute("insert into orders values (9, 'north', 1, 1)")
        connection.execute("select tide.refresh_stream_table('found')")
        connection.execute("insert into orders values (10, 'north', 1, 1)")
    connection.isolation_level = None
    assert last(connection, "action, reason") == ("FULL", "its transaction had changed its sources")
    refresh(connection, "found")
    connection.execute("insert into orders values (11, 'north', 1, 1)")
    refresh(connection, "found")
    assert last(connection, "action") == ("DIFFERENTIAL",)


def test_a_stream_table_over_another_follows_its_rows(connection):
    planned(connection, SUMS)
    create(connection, "big", "select region, amount from found")
    [(source,)] = connection.execute("select 'found'::regclass::oid").fetchall()
    text = f'select region, amount, "__w" from tide_stream.d_{source}'
    linear = {"sources": [source], "strategy": "linear", "form": "rows", "text": text, "reason": None}
    keep(
        connection,
        "big",
        {
            "version": 1,
            "kind": "rows",
            "key": ["region"],
            "groups": 0,
            "fields": [],
            "changes": [linear],
            "indexes": [],
        },
    )
    refresh(connection, "big")
    connection.execute("insert into orders values (9, 'north', 1, 1)")
    refresh(connection, "found")
    refresh(connection, "big")
    assert last(connection) == ("DIFFERENTIAL", "linear", 2, 0, 1, 0)


def test_a_query_that_cannot_be_followed_says_so_and_needs_no_rows(connection):
    create(connection, "found", SUMS)
    keep(connection, "found", {"version": 1, "reason": "it is a secret"})
    assert effective(connection) == ("FULL", "it is a secret")
    assert connection.execute("select tide.stream_prepare(pipeline, 1) from tide.stream").fetchone() == (False,)
    assert connection.execute("select count(*) from tide.stream_buffer").fetchone() == (0,)
    connection.execute("insert into orders values (9, 'north', 1, 1)")
    refresh(connection, "found")
    assert connection.execute("select tide.stream_prepare(pipeline, 2) from tide.stream").fetchone() == (True,)
    assert connection.execute("select count(*) from tide.stream_buffer").fetchone() == (1,)


def test_a_stream_table_without_a_plan_has_to_be_analysed(connection):
    create(connection, "found", SUMS)
    prepare = "select tide.stream_prepare(pipeline, 1) from tide.stream"
    assert effective(connection) == ("FULL", "its query has not been analysed yet")
    assert connection.execute(prepare).fetchone() == (True,)
    keep(connection, "found", PLANS[SUMS](Ids(connection, "found")))
    assert connection.execute(prepare).fetchone() == (False,)
    connection.execute("create unique index on orders (region, order_id)")
    assert connection.execute(prepare).fetchone() == (True,)


def test_what_is_kept_of_a_statement_follows_new_names(connection):
    """Also if the old name is that of another table now, or columns have exchanged theirs."""
    planned(connection, LEFT)
    connection.execute("insert into orders values (5, 'north', 1, 1)")
    refresh(connection, "found")
    connection.execute("alter table customers rename to clients")
    connection.execute("create table customers (customer_id int, name text)")
    connection.execute("insert into customers values (1, 'wrong')")
    connection.execute("insert into orders values (6, 'north', 1, 1)")
    refresh(connection, "found")
    assert last(connection, "action, rows_inserted") == ("DIFFERENTIAL", 1)
    connection.execute("alter table orders rename column region to between")
    connection.execute("alter table orders rename column amount to region")
    connection.execute("alter table orders rename column between to amount")
    for number in (7, 8, 9):
        connection.execute("select tide.stream_prepare(pipeline, 1) from tide.stream")
        connection.execute("insert into orders values (%s, 'north', 1, 1)", [number])
        refresh(connection, "found")
    assert last(connection, "action, rows_inserted") == ("DIFFERENTIAL", 1)
    connection.execute("select tide.stream_outbox_enable('found')")
    connection.execute("insert into orders values (10, 'north', 1, 1)")
    refresh(connection, "found")
    assert connection.execute("select count(*) from tide.message").fetchone() == (1,)
    assert connection.execute("select count(*) from tide.stream_text").fetchone() == (2,), "a net change, and the rest"
