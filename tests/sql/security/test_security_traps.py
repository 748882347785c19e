"""A caller who has set traps springs none: whatever a role may be granted is called, with everything that functions use
shadowed, first in the caller's path and in its temporary schema."""

import re
from pathlib import Path

import psycopg
import pytest

from relay.sql import functions
from tests.sql.security.logins import logins
from tests.waiting import wait_until

pytestmark = pytest.mark.each_postgres

SQL = "\n".join(file.sql for file in functions())
KINDS = ("grant_admin", "grant_publisher", "grant_consumer", "grant_job_publisher", "grant_relay", "grant_streams")

# Functions of PostgreSQL that ours call, and operators, by the same names and for the same types; but they raise.
FUNCTIONS = """
    do $$ declare f record; begin
        for f in select p.proname, pg_get_function_identity_arguments(p.oid) as arguments,
                        pg_get_function_result(p.oid) as result
                   from pg_proc p
                  where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f'
                    and p.proname = any (string_to_array(current_setting('test.words'), ' ')) loop
            begin
                execute format('create function trap.%I(%s) returns %s language plpgsql as %L', f.proname, f.arguments,
                               f.result, format('begin raise exception ''trap: function %s''; end', f.proname));
            exception when invalid_function_definition or feature_not_supported or syntax_error then null;
            end;
        end loop;
    end $$"""
OPERATORS = """
    do $$ declare o record; begin
        for o in select p.oid, p.oprname, p.oprleft::regtype as l, p.oprright::regtype as r,
                        p.oprresult::regtype as result
                   from pg_operator p
                  where p.oprkind = 'b' and p.oprleft::regtype::text || p.oprright::regtype !~ '(internal|box|vector)'
                    and p.oprname = any (array['=', '<>', '<', '<=', '>', '>=', '||', '->', '->>', '-', '+', '*', '%',
                                               '~', '!~', '@>', '&', '#', '>>', '/', '^', '<<']) loop
            begin
                execute format('create function trap.op_%s(%s, %s) returns %s language plpgsql as %L', o.oid, o.l, o.r,
                               o.result, 'begin raise exception ''trap: operator''; end');
                execute format('create operator trap.%s (function = trap.op_%s, leftarg = %s, rightarg = %s)',
                               o.oprname, o.oid, o.l, o.r);
            exception when invalid_function_definition or feature_not_supported then null;
            end;
        end loop;
    end $$"""
RELATIONS = """
    do $$ declare r record; begin
        for r in select distinct c.relname from pg_class c
                  where c.relnamespace in ('tide'::regnamespace, 'pg_catalog'::regnamespace)
                    and c.relkind in ('r', 'p', 'v') loop
            execute format('create temp table %I (trapped int)', r.relname);
            execute format('create table trap.%I (trapped int)', r.relname);
        end loop;
    end $$"""
TYPES = (
    "text",
    "jsonb",
    "name",
    "regclass",
    "regtype",
    "regproc",
    "oid",
    "timestamptz",
    "uuid",
    "bytea",
    "int8",
    "xid8",
)

# Each line is a call.
CALLS = [
    line
    for line in (Path(__file__).parent / "security_calls.sql").read_text().splitlines()
    if not line.startswith("--")
]
# Called by hand they only say that they are a trigger's.
NOT_CALLED = {
    ("tide", "table_outbox_changed"),
    ("tide", "table_routed"),
    ("tide", "stream_guard"),
    # Parts of create_stream_table and alter_stream_table, which are called.
    ("tide", "stream_add_columns"),
    ("tide", "stream_check_columns"),
    ("tide", "stream_create"),
    ("tide", "stream_create_foreign"),
    ("tide", "stream_create_if"),
    ("tide", "stream_define"),
    ("tide", "stream_enter"),
    ("tide", "stream_given"),
    ("tide", "stream_make_runner"),
    ("tide", "stream_reenter"),
    ("tide", "stream_requery"),
    ("tide", "stream_requery_foreign"),
    ("tide", "stream_require_owner"),
    ("tide", "stream_runner_text"),
    ("tide", "stream_target"),
    ("tide", "stream_usual_schedule"),
}


@pytest.fixture
def mallory(database):
    """May do all that can be granted, and has set traps."""
    with logins(database) as make, database.connect() as owner:
        owner.execute("select tide.outbox_create('orders')")
        owner.execute("select tide.create_stream_table('public.totals', 'select 1 as one')")
        _, url = make(*KINDS, name="mallory")
        with database.admin() as admin:
            admin.execute("create schema trap authorization mallory; grant mallory to tide_owner")
        owner.execute("""
            insert into tide.dead_letter
                (pipeline, outbox, message_id, headers, payload, published_at, code, reason, attempts)
            values ('p', 'orders', 1, '{}', '1', now(), 'refused', 'why not', 1)""")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create table trap.sold (id int primary key, a jsonb, b text)")
            connection.execute("create table trap.events (event_id text primary key)")
            _lay_traps(connection)
            yield connection
        with database.admin() as admin:
            # The session removes its temporary tables at its end, which goes on for a while after it was closed.
            mine = "select count(*) = 0 from pg_stat_activity where usename = 'mallory'"
            wait_until(lambda: admin.execute(mine).fetchone()[0], 60, "the session has ended")
            admin.execute("drop schema trap cascade")


def _lay_traps(mallory):
    words = " ".join(set(re.findall(r"\b([a-z]\w+)\s*\(", SQL)))
    mallory.execute("select set_config('test.words', %s, false)", [words])
    for traps in (FUNCTIONS, OPERATORS, RELATIONS):
        mallory.execute(traps)
    mallory.execute(
        "create function trap.caught() returns boolean language plpgsql as"
        " $$ begin raise exception 'trap: type'; end $$"
    )
    for name in TYPES:
        for schema in ("trap", "pg_temp"):
            mallory.execute(f"create domain {schema}.{name} as pg_catalog.{name} check (trap.caught())")
    mallory.execute("set search_path = trap, pg_temp, pg_catalog, tide, pgtrickle")


def test_the_traps_are_laid(mallory):
    for text in (
        "select now()",
        "select 'a' = 'b'",
        "select 1 + 1",
        "select 'a'::text",
        "select octet_length('a')",
        "select '{}'::pg_catalog.jsonb ->> 'a'",
        "select has_function_privilege('a', 'b', 'c')",
        "select array_append(array[1], 1)",
        "select array[1] || 1",
        "select '{}' || '{}'::pg_catalog.jsonb",
    ):
        with pytest.raises(psycopg.Error, match="trap: "):
            mallory.execute(text)
    cursor = mallory.execute("select * from pg_class, message, outbox")
    assert [column.name for column in cursor.description] == ["trapped"] * 3


def test_everything_that_can_be_granted_is_called_here(database):
    with database.connect() as owner:
        granted = owner.execute("""
            select distinct schema::text, object::text from tide.permission
             where object_type = 'function' and kind <> 'owner'""").fetchall()
    assert set(granted) - set(re.findall(r"\b(tide|pgtrickle)\.(\w+)\(", "\n".join(CALLS))) == NOT_CALLED


def test_no_function_springs_a_trap_of_its_caller(mallory):
    for call in CALLS:
        mallory.execute(call)
