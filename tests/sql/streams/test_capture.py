"""Rows that are captured: what transactions added to a source and removed from it, whatever becomes of the source."""

import psycopg
import pytest

from tests.sql.streams.analysed import analyse_and_keep
from tests.sql.streams.streams import assert_equal, behind, create, refresh

NET = """
    select coalesce(json_agg(row_to_json(net) order by net), '[]')
      from (select {columns}, sum(d."__w")::int as "__w" from tide_stream.d_{source} d
             group by {columns} having sum(d."__w") <> 0) net
"""


@pytest.fixture
def connection(database):
    with database.connect() as connection:
        connection.execute("""
            create table orders (id int primary key, region text, amount numeric(10,2), note text);
            insert into orders values (1, 'north', 10), (2, 'south', 20), (3, 'north', 5);
        """)
        yield connection


def captured(connection, table="orders", columns="id, region, amount"):
    """What changed, net: rows by sign."""
    [(source,)] = connection.execute("select %s::regclass::oid", [table]).fetchall()
    [(net,)] = connection.execute(NET.format(columns=columns, source=source)).fetchall()
    return [tuple(row.values()) for row in net]


def buffered(connection):
    """The columns of each buffer."""
    return connection.execute("""
        select array_agg(a.attname::text order by a.attnum) from pg_class c join pg_attribute a on a.attrelid = c.oid
         where c.relnamespace = 'tide_stream'::regnamespace and c.relname ~ '^b_[0-9]+$' and a.attnum > 0 group by c.oid
    """).fetchall()


def test_rows_are_stored_by_sign_with_what_is_read_and_the_key(connection):
    create(connection, "sums", "select region, sum(amount) as amount from orders group by region")
    assert buffered(connection) == [(["__xid", "__w", "id", "region", "amount"],)]
    connection.execute("insert into orders values (4, 'west', 1)")
    connection.execute("update orders set region = 'east' where id = 1")
    connection.execute("delete from orders where id = 2")
    connection.execute("update orders set note = 'x'")
    connection.execute("insert into orders values (3, 'up', 7) on conflict (id) do update set amount = excluded.amount")
    assert captured(connection) == [
        (1, "east", 10, 1),
        (1, "north", 10, -1),
        (2, "south", 20, -1),
        (3, "north", 5, -1),
        (3, "north", 7, 1),
        (4, "west", 1, 1),
    ]
    assert connection.execute("select count(*) from tide.stream_change").fetchone() == (0,)


def test_what_is_rolled_back_was_never_there(connection):
    create(connection, "regions", "select region from orders")
    with connection.transaction():
        connection.execute("insert into orders values (4, 'west', 1)")
        with connection.transaction(force_rollback=True):
            connection.execute("delete from orders")
    assert captured(connection, columns="id, region") == [(4, "west", 1)]


def test_a_source_is_captured_once_with_what_any_stream_table_reads(connection):
    create(connection, "regions", "select region from orders")
    refresh(connection, "regions")
    create(connection, "notes", "select note from orders")
    assert buffered(connection) == [(["__xid", "__w", "id", "region", "note"],)]
    assert behind(connection, "regions") is None
    connection.execute("insert into orders values (4, 'west', 1, 'n')")
    assert captured(connection, columns="id, region, note") == [(4, "west", "n", 1)]
    assert refresh(connection, "regions")[1:3] == (1, 0)
    assert refresh(connection, "notes")[1:3] == (4, 0)
    connection.execute("select tide.drop_stream_table('regions')")
    connection.execute("select tide.drop_stream_table('notes')")
    assert buffered(connection) == []
    assert connection.execute(
        "select count(*) from pg_proc where pronamespace = 'tide_stream'::regnamespace"
    ).fetchone() == (0,)


def test_a_renamed_column_fails_no_writer_and_is_followed(connection):
    create(connection, "sums", "select region, sum(amount) as amount from orders group by region")
    refresh(connection, "sums")
    connection.execute("alter table orders rename column amount to price")
    connection.execute("alter table orders rename column region to place")
    connection.execute("alter table orders rename column note to amount")
    connection.execute("insert into orders values (4, 'west', 1, 'n')")
    connection.execute("update orders set price = 2 where id = 4")
    connection.execute("delete from orders where id = 1")
    assert captured(connection) == [(1, "north", 10, -1), (4, "west", 2, 1)]
    connection.execute("select tide.stream_prepare(pipeline, 1) from tide.stream")
    assert behind(connection, "sums") == "the capture of its sources was changed"
    assert refresh(connection, "sums")[0] == "FULL"
    connection.execute("insert into orders values (5, 'west', 1, 'n')")
    assert (5, "west", 1, 1) in captured(connection, columns="id, place, price")


def test_names_that_were_exchanged_are_followed(connection):
    create(connection, "pairs", "select region, note from orders")
    connection.execute("alter table orders rename column region to between")
    connection.execute("alter table orders rename column note to region")
    connection.execute("alter table orders rename column between to note")
    connection.execute("insert into orders (id, note, region) values (4, 'is region', 'is note')")
    connection.execute("select tide.stream_prepare(pipeline, 1) from tide.stream")
    connection.execute("insert into orders (id, note, region) values (5, 'is region', 'is note')")
    assert captured(connection, columns="id, note, region") == [
        (4, "is region", "is note", 1),
        (5, "is region", "is note", 1),
    ]


def test_a_key_that_becomes_another_type_fails_no_writer(connection):
    create(connection, "regions", "select region from orders")
    refresh(connection, "regions")
    connection.execute("alter table orders alter column id type text")
    connection.execute("insert into orders values ('four', 'west')")
    assert connection.execute("select count(*) from tide.stream_change").fetchone() == (1,)
    assert refresh(connection, "regions")[0] == "FULL"
    connection.execute("select tide.stream_prepare(pipeline, 1) from tide.stream")
    connection.execute("insert into orders values ('five', 'west')")
    assert captured(connection, columns="id, region") == [("five", "west", 1)]


def test_a_key_that_is_dropped_fails_no_writer(connection):
    create(connection, "regions", "select region from orders")
    connection.execute("alter table orders drop column id")
    connection.execute("insert into orders values ('west')")
    connection.execute("select tide.stream_prepare(pipeline, 1) from tide.stream")
    connection.execute("insert into orders values ('east')")
    assert buffered(connection) == [(["__xid", "__w", "region"],)]
    assert captured(connection, columns="region") == [("east", 1)]


def test_a_truncated_source_has_no_rows_to_tell(connection):
    create(connection, "regions", "select region from orders")
    refresh(connection, "regions")
    connection.execute("truncate orders")
    assert captured(connection, columns="id") == []
    assert behind(connection, "regions") == "its sources changed"
    assert refresh(connection, "regions")[2] == 3


def test_a_partition_with_its_columns_in_another_order_is_captured_by_name(connection):
    connection.execute("""
        create table days (id int, name text, size int) partition by range (id);
        create table days_1 (size int, gone int, name text, id int);
        alter table days_1 drop column gone;
        alter table days attach partition days_1 for values from (0) to (10);
    """)
    create(connection, "names", "select id, name from days")
    connection.execute("insert into days_1 (id, name, size) values (1, 'a', 7)")
    connection.execute("insert into days (id, name, size) values (2, 'b', 7)")
    connection.execute("alter table days rename column name to called")
    connection.execute("update days_1 set called = 'c' where id = 1")
    assert captured(connection, "days", "id, name") == [(1, "c", 1), (2, "b", 1)]


def test_a_mode_that_is_full_needs_no_rows(connection):
    create(connection, "regions", "select region from orders", refresh_mode="FULL")
    assert buffered(connection) == []
    refresh(connection, "regions")
    connection.execute("select tide.alter_stream_table('regions', refresh_mode => 'AUTO')")
    assert behind(connection, "regions") == "the capture of its sources was changed"
    refresh(connection, "regions")
    connection.execute("insert into orders values (4, 'west')")
    assert captured(connection, columns="id, region") == [(4, "west", 1)]
    connection.execute("select tide.alter_stream_table('regions', refresh_mode => 'FULL')")
    assert buffered(connection) == []
    refresh(connection, "regions")
    connection.execute("insert into orders values (5, 'west')")
    assert refresh(connection, "regions")[1] == 1


FULL = {
    "select o as whole from orders o": "it reads whole rows of a table",
    "select count(o) as n from orders o": "it reads whole rows of a table",
    "select loud(region) as loud from orders": "it calls loud(), which has no search_path of its own",
    "select place from kinds": (
        "it reads column place of public.kinds, whose type public.citext is not of PostgreSQL itself"
    ),
    "select region from guarded": "public.guarded has row security",
    "select region from orders where region::regclass is not null": "it reads names by the search_path",
}


@pytest.mark.parametrize("query", FULL)
def test_what_rows_cannot_tell_is_noted(connection, query):
    connection.execute("""
        create function loud(t text) returns text immutable language sql as $$ select upper(t) $$;
        create table guarded (id int primary key, region text);
        alter table guarded enable row level security;
    """)
    if "kinds" in query:
        try:
            with connection.transaction():
                connection.execute("create extension citext")
                connection.execute("create table kinds (id int primary key, place citext)")
        except psycopg.Error:
            pytest.skip("there is no citext here")
    create(connection, "found", query)
    assert connection.execute("select full_reason from tide.stream").fetchone() == (FULL[query],)
    assert buffered(connection) == []


def test_a_column_that_is_generated_when_it_is_read_is_noted(connection):
    if connection.info.server_version < 180000:
        pytest.skip("PostgreSQL 18 has virtual columns")
    connection.execute(
        "create table sizes (id int primary key, size int, twice int generated always as (size * 2) virtual)"
    )
    create(connection, "found", "select twice from sizes")
    assert connection.execute("select full_reason from tide.stream").fetchone() == (
        "it reads column twice of public.sizes, which is generated when it is read",
    )


def test_rows_that_every_stream_table_has_seen_are_removed(connection):
    create(connection, "regions", "select region from orders")
    create(connection, "notes", "select note from orders")
    refresh(connection, "regions")
    connection.execute("insert into orders values (4, 'west')")
    refresh(connection, "regions")
    assert connection.execute("select tide.stream_clean()").fetchone() == (0,)
    refresh(connection, "notes")
    assert connection.execute("select tide.stream_clean()").fetchone() == (1,)
    connection.execute("insert into orders values (5, 'west')")
    connection.execute("select tide.alter_stream_table('notes', tier => 'frozen')")
    refresh(connection, "regions")
    assert connection.execute("select tide.stream_clean()").fetchone() == (1,)


def test_rows_are_kept_for_a_stream_table_that_only_has_to_know_of_them(connection):
    create(connection, "regions", "select region from orders")
    create(connection, "whole", "select region from orders", refresh_mode="FULL")
    refresh(connection, "regions")
    refresh(connection, "whole")
    connection.execute("insert into orders values (4, 'west')")
    refresh(connection, "regions")
    assert connection.execute("select tide.stream_clean()").fetchone() == (0,)
    assert behind(connection, "whole") == "its sources changed"
    refresh(connection, "whole")
    assert connection.execute("select tide.stream_clean()").fetchone() == (1,)


def test_a_buffer_does_not_grow_without_bound(connection):
    create(connection, "regions", "select region from orders")
    refresh(connection, "regions")
    connection.execute("select tide.setting_set('stream_max_buffer_rows', '5')")
    connection.execute("insert into orders select 10 + n, 'west' from generate_series(1, 5) n")
    assert connection.execute("select tide.stream_clean()").fetchone() == (0,)
    connection.execute("insert into orders values (4, 'west')")
    assert connection.execute("select tide.stream_clean()").fetchone() == (6,)
    assert behind(connection, "regions") == "it has not been computed since it was created, resumed or restored"
    assert refresh(connection, "regions")[:2] == ("FULL", 6)


def test_a_refresh_that_began_before_its_rows_were_removed_fails(connection, database):
    create(connection, "regions", "select region from orders")
    connection.execute("select tide.setting_set('stream_max_buffer_rows', '1')")
    with database.connect() as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.autocommit = False
        other.execute("select 1 from orders")
        connection.execute("insert into orders values (4, 'west'), (5, 'west')")
        assert connection.execute("select tide.stream_clean()").fetchone() == (2,)
        with pytest.raises(psycopg.errors.SerializationFailure):
            other.execute("select tide.stream_refresh(pipeline) from tide.stream")
        other.rollback()


def stored(connection, table="orders"):
    """How many rows lie in the buffer one by one, and how many in arrays."""
    [(source,)] = connection.execute("select %s::regclass::oid", [table]).fetchall()
    arrays = f"select coalesce(sum(__n), 0)::int from tide_stream.m_{source}"
    return connection.execute(f"select (select count(*) from tide_stream.b_{source}), ({arrays})").fetchone()


def test_what_many_rows_became_is_in_arrays_and_is_followed_counted_and_removed(connection):
    connection.execute("""
        create type kind as enum ('a', 'b');
        create domain word as text check (length(value) < 9);
        create table things (id int primary key, kind kind, word word, tags text[], size int);
        insert into things select n, 'a', 'w', array['x', null], n from generate_series(1, 1000) n;
    """)
    create(connection, "found", "select kind, word, tags, size from things")
    create(connection, "names", "select word from things where size > 0")
    for name in ("found", "names"):
        analyse_and_keep(connection, name)
        refresh(connection, name)
    connection.execute("update things set word = null, kind = 'b', size = -size where id <= 450")
    connection.execute("delete from things where id between 400 and 449")
    connection.execute("delete from things where id between 900 and 948")
    assert stored(connection, "things") == (0, 999)
    pending = "select pending_rows from tide.change_buffer_sizes() where stream_table = 'public.names'"
    assert connection.execute(pending).fetchone() == (999,)
    assert refresh(connection, "found") == ("DIFFERENTIAL", 400, 499)
    connection.execute("alter table things rename column word to name")
    connection.execute("insert into things select n, 'a', 'w', null, n from generate_series(2001, 2060) n")
    connection.execute("select tide.stream_prepare(pipeline, 1) from tide.stream")
    connection.execute("alter table things add column note text")
    create(connection, "notes", "select note from things")
    connection.execute("insert into things select n, 'a', 'w', null, n, 'n' from generate_series(3001, 3050) n")
    assert stored(connection, "things") == (60, 999 + 50)
    for name in ("found", "names", "notes"):
        refresh(connection, name)
    assert refresh(connection, "names")[0] == "NO_DATA"
    connection.execute("select tide.stream_clean()")
    assert stored(connection, "things") == (0, 0)
    connection.execute("select tide.setting_set('stream_max_buffer_rows', '100')")
    connection.execute("update things set size = 1 where id <= 50")
    connection.execute("select tide.stream_clean()")
    assert behind(connection, "names") == "its sources changed"
    connection.execute("update things set size = 2 where id = 1")
    connection.execute("select tide.stream_clean()")
    assert behind(connection, "names") == "it has not been computed since it was created, resumed or restored"


@pytest.mark.parametrize("rows", [20, 21, 1000, 1001, 2500, 10_000, 10_001, 12_500])
def test_statements_of_any_size_are_stored_whole_whatever_the_columns_are_called(connection, rows):
    connection.execute("create table many (id int primary key, names text, stored int, cut int)")
    create(connection, "found", "select names, stored, cut from many", refresh_mode="DIFFERENTIAL")
    analyse_and_keep(connection, "found")
    refresh(connection, "found")
    written = [
        f"insert into many select n, 'name ' || n, n, 1 from generate_series(1, {rows}) n",
        "update many set stored = -stored",
        "delete from many",
    ]
    for statement, changed in zip(written, [(rows, 0), (rows, rows), (0, rows)], strict=True):
        connection.execute(statement)
        assert refresh(connection, "found") == ("DIFFERENTIAL", *changed)
        assert_equal(connection, "found")
    assert stored(connection, "many") == ((4 * rows, 0) if rows <= 20 else (0, 4 * rows))


def test_large_values_are_in_no_array(connection):
    create(connection, "notes", "select note from orders")
    refresh(connection, "notes")
    connection.execute("alter table orders alter note set storage external")
    connection.execute("insert into orders (id, note) select 100 + n, repeat('x', 3000) from generate_series(1, 60) n")
    assert stored(connection) == (60, 0)
    connection.execute("insert into orders (id, note) select 200 + n, 'small' from generate_series(1, 60) n")
    connection.execute("update orders set note = 'small' where id between 101 and 160")
    assert stored(connection) == (60 + 120, 60)
    refresh(connection, "notes")


def test_a_buffer_that_is_written_as_a_whole_meanwhile_fails_the_refresh(connection, database):
    """A column of a domain was added for another stream table: a snapshot from before sees no row of the buffer."""
    connection.execute("create domain word as text check (length(value) < 9)")
    connection.execute("alter table orders add column word word")
    create(connection, "regions", "select region from orders")
    refresh(connection, "regions")
    connection.execute("insert into orders values (4, 'west')")
    with database.connect() as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.autocommit = False
        other.execute("select 1")
        create(connection, "words", "select word from orders")
        with pytest.raises(psycopg.errors.SerializationFailure):
            other.execute("select tide.stream_refresh('streams.public.regions')")
        other.rollback()
    assert refresh(connection, "regions")[1:] == (1, 0)
