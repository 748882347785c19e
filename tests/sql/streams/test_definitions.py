"""A script makes a stream table again, in a database that has what it reads."""

import psycopg
import pytest

from tests.sql.streams.streams import assert_equal, create, refresh

TABLES = """
    create schema shop;
    create table shop.orders (order_id int primary key, region text, at timestamptz);
    insert into shop.orders values (1, 'it''s', '2026-01-01 23:00+00'), (2, null, '2026-01-02 10:00+00');
    create function shop.shout(text) returns text language sql immutable as 'select upper($1)';
"""
QUERY = """
    select shout(region) as region, date_trunc('day', at) as day, count(*) as orders, 'don''t $$' as note
      from orders group by 1, 2;
"""


@pytest.fixture
def other(pg):
    database = pg.create_database()
    yield database
    pg.drop_database(database)


def test_the_script_makes_it_again_in_another_database(database, other):
    with database.connect() as connection, other.connect() as empty:
        for each in (connection, empty):
            each.execute(TABLES)
        connection.execute("set search_path = shop; set timezone = 'Asia/Tokyo'")
        create(
            connection, '"Per Day"', QUERY, schedule="1m30s", refresh_mode="DIFFERENTIAL", tier="cold", initialize=False
        )
        connection.execute("reset search_path; reset timezone")
        connection.execute("""
            create index per_day_region on shop."Per Day" (region) where orders > 1;
            alter table shop."Per Day" add constraint "one each" unique (region, day);
            comment on table shop."Per Day" is 'what''s sold';
        """)
        [(script,)] = connection.execute("select tide.export_definition('shop.\"Per Day\"')").fetchall()
        assert connection.execute("select pgtrickle.export_definition('Per Day')").fetchall() == [(script,)]
        empty.execute(script)
        facts = """
            select s.name, s.schedule, s.refresh_mode, s.tier, s.suspended, s.settings,
                   pg_get_viewdef('tide_stream.q_1'), obj_description(s.relation),
                   array(select indexdef from pg_indexes where tablename = 'Per Day' order by 1),
                   (select pg_get_constraintdef(oid) from pg_constraint where conrelid = s.relation and contype = 'u')
              from tide.stream s"""
        assert empty.execute(facts).fetchall() == connection.execute(facts).fetchall()
        assert empty.execute("show search_path").fetchone() == ('"$user", public',), "the session stays as it was"
        assert [script] == [row[0] for row in empty.execute("select tide.export_definition('Per Day')")]


def test_tables_that_were_renamed_since_are_named_as_they_are_now(database, other):
    with database.connect() as connection, other.connect() as empty:
        connection.execute("create table old (id int)")
        create(connection, "ids", "select id from old")
        connection.execute("alter table old rename to young; alter table young rename id to number")
        [(script,)] = connection.execute("select tide.export_definition('ids')").fetchall()
        empty.execute("create table young (number int); insert into young values (7)")
        empty.execute(script)
        refresh(empty, "ids")
        assert_equal(empty, "ids")
        assert empty.execute("select id from ids").fetchall() == [(7,)]


def test_what_does_not_exist_is_not_exported(database):
    with database.connect() as connection, pytest.raises(psycopg.errors.UndefinedObject):
        connection.execute("select tide.export_definition('nowhere')")


def test_a_stream_table_is_found_with_and_without_its_schema_and_its_quotes(database):
    with database.connect() as connection:
        connection.execute("create schema shop")
        create(connection, 'shop."Per Day"', "select 1 as one")
        find = "select (tide.find_stream(%s)).name"
        for name in ('shop."Per Day"', "shop.Per Day", '"Per Day"', "Per Day"):
            assert connection.execute(find, [name]).fetchone() == ('shop."Per Day"',), name
        create(connection, 'public."Per Day"', "select 1 as one")
        assert connection.execute(find, ["shop.Per Day"]).fetchone() == ('shop."Per Day"',)
        assert connection.execute(find, ['public."Per Day"']).fetchone() == ('public."Per Day"',)
        for name in ('"Per Day"', "Per Day"):
            with pytest.raises(psycopg.errors.UndefinedObject, match="several"):
                connection.execute(find, [name])
