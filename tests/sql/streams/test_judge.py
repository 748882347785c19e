"""A worker can have nothing run as the owner of stream tables that their queries do not run."""

import psycopg
import pytest

from tests.sql.streams.plans import SUMS, TABLES, Ids, keep, rows_plan, sums_plan
from tests.sql.streams.streams import create, pipeline, refresh

QUERY = "select order_id, region, at::date as day from orders"
SECRETS = """
    alter table orders add column at timestamptz;
    alter table orders add column secret text;
    create table secrets (secret text);
    create view over_secrets as select secret from secrets;
    create function ran() returns void volatile language sql as 'create table if not exists public.traces ()';
    create function evil(t text) returns text immutable language plpgsql as
    $$ begin perform public.ran(); return t; end $$;
    create domain evil_text as text check (evil(value) is not null);
    create operator === (leftarg = text, rightarg = text, function = evil_equal);
"""
EQUAL = """
    create function evil_equal(a text, b text) returns boolean immutable language plpgsql as
    $$ begin perform public.ran(); return true; end $$;
"""


@pytest.fixture
def connection(database):
    with database.connect() as connection:
        connection.execute(TABLES)
        connection.execute(EQUAL + SECRETS)
        create(connection, "found", QUERY)
        yield connection


@pytest.fixture
def ids(connection):
    return Ids(connection, "found")


def plan_of(ids, text, form="rows"):
    change = {"sources": [ids.orders], "strategy": "linear", "form": form, "text": text, "reason": None}
    return rows_plan(["order_id"], [change])


GOOD = 'select order_id, region, at::date as day, "__w" from tide_stream.d_{orders}'
PLAIN = 'select order_id, {expression} as region, at::date as day, 1::bigint as "__w" from public.orders o'
REGION = 'select order_id, {expression} as region, at::date as day, "__w" from tide_stream.d_{{orders}}'
REFUSED = {
    GOOD + " where exists (select from public.secrets)": "it reads public.secrets",
    GOOD + " where exists (select from public.over_secrets)": "it reads public.over_secrets",
    GOOD + " where exists (select from pg_catalog.pg_authid)": "it reads pg_authid",
    GOOD + " where exists (select from tide.dead_letter)": "it reads tide.dead_letter",
    GOOD + " where exists (select from tide_stream.b_{orders})": "it reads tide_stream.b_",
    PLAIN.format(expression="secret"): "it reads column secret of public.orders",
    PLAIN.format(expression="o::text"): "it reads rows as a whole",
    PLAIN.format(expression="ctid::text"): "it reads column ctid of public.orders",
    GOOD + " for update of d_{orders}": "it locks rows",
    PLAIN.format(expression="region") + " tablesample system (1)": "it takes a random sample",
    REGION.format(expression="public.evil(region)"): "it calls public.evil",
    REGION.format(expression="public.evil('x')"): "it calls public.evil",
    REGION.format(expression="case when region operator(public.===) 'x' then region end"): "it calls public.evil_equal",
    REGION.format(expression="region::public.evil_text::text"): "it makes values of type public.evil_text",
    REGION.format(
        expression="(array[region]::public.evil_text[])[1]::text"
    ): "it makes values of type public.evil_text",
    REGION.format(expression="pg_read_file('/etc/passwd')"): "it calls pg_read_file",
    REGION.format(expression="set_config('tide.x', region, false)"): "it calls set_config",
    REGION.format(expression="pg_notify('x', region)::text"): "it calls pg_notify",
    REGION.format(expression="lo_import('/etc/passwd')::text"): "it calls lo_import",
    REGION.format(expression="query_to_xml('select 1', true, true, '')::text"): "it calls query_to_xml",
    REGION.format(expression="table_to_xml('public.secrets', true, true, '')::text"): "it calls table_to_xml",
    REGION.format(expression="pg_sleep(1)::text"): "it calls pg_sleep",
    REGION.format(expression="current_setting('tide.x')"): "it calls current_setting",
    REGION.format(expression="current_user::text"): "it reads the time, a user or a schema of the session",
    GOOD + " where exists (select from public.evil('x'))": "it calls public.evil",
    GOOD + " order by public.evil(region)": "it calls public.evil",
    GOOD + " limit (select length(public.evil('x')))": "it calls public.evil",
    GOOD + "; select public.ran()": "is more than one",
    GOOD + "; drop table public.secrets; create view public.x as select 1": "is more than one",
    'select order_id, region, "__w" from tide_stream.d_{orders}': "has the columns",
    'select order_id, region, at::date as day, "__w"::int from tide_stream.d_{orders}': "has the columns",
    'select order_id, region, at as day, "__w" from tide_stream.d_{orders}': "has the columns",
}


def test_a_statement_that_does_what_the_query_does_not_is_refused_and_runs_nothing(connection, ids):
    for text, why in REFUSED.items():
        print(text)
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
            keep(connection, "found", plan_of(ids, text.format(orders=ids.orders)))
        assert why in str(refused.value)
        assert connection.execute(
            "select to_regclass('traces') is null, to_regclass('secrets') is not null"
        ).fetchone() == (True, True)
        assert connection.execute("select count(*) from tide.stream_plan").fetchone() == (0,)


@pytest.mark.parametrize(
    "text",
    [
        "with gone as (delete from public.orders returning *) " + GOOD,
        "delete from public.orders returning order_id, region, at::date as day, 1::bigint",
        "select 1 as order_id into public.stolen",
        "drop table public.secrets",
        "select 1) x; select public.ran(); select * from (select 1",
    ],
)
def test_what_is_no_select_is_refused_and_runs_nothing(connection, ids, text):
    with pytest.raises(psycopg.Error):
        keep(connection, "found", plan_of(ids, text.format(orders=ids.orders)))
    assert connection.execute(
        "select to_regclass('traces') is null, to_regclass('secrets') is not null"
    ).fetchone() == (True, True)
    assert connection.execute("select count(*) from orders").fetchone() == (4,)


@pytest.mark.parametrize("part", ["out", "whole"])
def test_the_state_and_what_is_shown_of_it_are_judged_too(connection, part):
    create(connection, "sums", SUMS)
    plan = sums_plan(Ids(connection, "sums"))
    bad = {**plan, part: f"select * from ({plan[part]}) r where set_config('tide.x', 'y', false) is null"}
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="it calls set_config"):
        keep(connection, "sums", bad)
    keep(connection, "sums", plan)


def test_changes_of_a_table_that_the_query_does_not_read_are_refused(connection, ids):
    create(connection, "names", "select name from customers")
    text = f"""
        select order_id, region, at::date as day, o."__w"
          from tide_stream.d_{ids.orders} o, tide_stream.d_{ids.customers} c"""
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=f"it reads tide_stream.d_{ids.customers}"):
        keep(connection, "found", plan_of(ids, text))


def test_a_column_that_there_is_not_is_no_key(connection, ids):
    plan = plan_of(ids, GOOD.format(orders=ids.orders))
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match='has no column "x; drop"'):
        keep(connection, "found", {**plan, "key": ["x; drop"]})


def test_the_query_of_a_table_that_is_always_computed_takes_no_plan(connection):
    create(connection, "now", "select order_id, now() as at from orders")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is computed as a whole: it calls now"):
        connection.execute("select tide.stream_keep(%s, '{}')", [pipeline(connection, "now")])


def test_what_the_query_does_is_kept_and_run(connection, ids):
    keep(connection, "found", plan_of(ids, GOOD.format(orders=ids.orders)))
    refresh(connection, "found")
    connection.execute("insert into orders (order_id, region, at) values (9, 'x', now())")
    refresh(connection, "found")
    assert connection.execute("select action from tide.stream_history order by refresh_id desc limit 1").fetchone() == (
        "DIFFERENTIAL",
    )


def test_functions_of_others_that_come_first_are_not_called_by_a_refresh(connection, ids):
    """A session may look into public first: its search_path is that of the query, but not of the statements."""
    connection.execute("""
        set search_path = public, pg_catalog;
        create function length(text) returns int language plpgsql immutable as
        $$ begin perform public.ran(); return 1; end $$
    """)
    connection.execute("create table words (id int primary key, word text)")
    create(connection, "lengths", "select id, pg_catalog.length(word) as n from words")
    [(source,)] = connection.execute("select 'words'::regclass::oid").fetchall()
    text = f'select id, pg_catalog.length(word) as n, "__w" from tide_stream.d_{source}'
    change = {"sources": [source], "strategy": "linear", "form": "rows", "text": text, "reason": None}
    keep(connection, "lengths", rows_plan(["id"], [change]))
    refresh(connection, "lengths")
    connection.execute("insert into words values (1, 'four')")
    refresh(connection, "lengths")
    assert connection.execute("select n, to_regclass('traces') is null from lengths").fetchone() == (4, True)


def test_nor_are_they_while_a_query_runs_by_the_search_path_of_its_creation(connection):
    connection.execute("""
        set search_path = public, pg_catalog;
        create function format(text, int) returns text language plpgsql immutable as
        $$ begin perform public.ran(); return 'select 1'; end $$
    """)
    create(connection, "times", "select order_id, now() as at from orders")
    refresh(connection, "times")
    assert connection.execute("select count(*), to_regclass('traces') is null from times").fetchone() == (4, True)
