"""Functions that run with their owner's rights believe nothing that their caller has set up."""

import psycopg
import pytest

from tests.sql.support import make_outbox, publish, publish_many

PINNED = "search_path=pg_catalog, pg_temp"


@pytest.fixture
def db(database):
    with database.connect() as connection:
        make_outbox(connection)
        yield connection


def test_every_function_with_its_owners_rights_has_a_pinned_search_path(db):
    rows = db.execute("""
        select oid::regprocedure::text, proconfig from pg_proc
         where pronamespace = 'tide'::regnamespace and prosecdef""").fetchall()
    assert len(rows) > 20
    assert [name for name, settings in rows if PINNED not in (settings or [])] == []


def test_every_other_function_is_pinned_too_or_bound_when_it_was_made(db):
    """The body of an SQL function in the standard's form is parsed once: names in it cannot change their meaning."""
    rows = db.execute("""
        select proname, proconfig, prosqlbody is not null from pg_proc
         where pronamespace = 'tide'::regnamespace and not prosecdef""").fetchall()
    assert [name for name, settings, bound in rows if not bound and PINNED not in (settings or [])] == []


def test_nobody_but_the_owner_may_call_any_function_or_use_any_table(db):
    functions = db.execute("""
        select oid::regprocedure::text from pg_proc
         where pronamespace = 'tide'::regnamespace and has_function_privilege('public', oid, 'execute')""").fetchall()
    tables = db.execute("""
        select oid::regclass::text from pg_class
         where relnamespace = 'tide'::regnamespace and relkind in ('r', 'p', 'S')
           and (relacl is not null and exists (select from aclexplode(relacl) a where a.grantee = 0))""").fetchall()
    usage = db.execute("select has_schema_privilege('public', 'tide', 'usage')").fetchone()
    assert (functions, tables, usage) == ([], [], (False,))


def test_a_callers_tables_functions_and_operators_are_not_believed(database, db):
    """Everything that the functions use is shadowed by a trap that raises, ahead on the caller's path."""
    with database.admin() as admin:
        admin.execute("create role mallory login password 'secret'; create schema trap authorization mallory")
        admin.execute("grant usage on schema tide to mallory")
        db.execute("grant execute on all functions in schema tide to mallory")
    try:
        url = database.server.process.url_of(database.name, "mallory", "secret")
        with psycopg.connect(url, autocommit=True) as mallory:
            _lay_traps(mallory)
            assert publish(mallory) == 1
            assert publish_many(mallory, 3) == [2, 3, 4]
            for statement in (
                "tide.outbox_create('other', partition_size => 1000)",
                "tide.outbox_create_if_not_exists('other')",
                "tide.outbox_extend('other')",
                "tide.outbox_needs_partition(1)",
                "tide.outbox_status('orders')",
                "tide.outbox_horizon(1)",
                "tide.outbox_oldest_publisher_seconds(1)",
                "tide.outbox_disable('orders'), tide.outbox_enable('orders')",
                "tide.relay_set_outbox('p', 'orders', '{\"sink_type\": \"memory\"}')",
                "tide.relay_disable('p'), tide.relay_enable('p'), tide.relay_get_config('p')",
                "tide.relay_list_configs()",
                "tide.relay_delete('p')",
                "tide.outbox_drop('other')",
            ):
                mallory.execute(f"select {statement}")
            assert mallory.execute("select count(*) from sprung").fetchone() == (0,)
    finally:
        with database.admin() as admin:
            admin.execute("drop owned by mallory; drop role mallory")


def _lay_traps(mallory):
    mallory.execute("set search_path = trap, pg_temp, pg_catalog")
    mallory.execute("create temp table sprung (what text)")
    for table in ("outbox", "message", "consumer_group", "bell", "pipeline", "scheduler", "pg_locks", "pg_database"):
        mallory.execute(f"create temp table {table} (like pg_catalog.pg_class)")
    for name, arguments, result in (
        ("nextval", "regclass", "bigint"),
        ("octet_length", "text", "int"),
        ("format", "text, text", "text"),
        ("concat", "text, text", "text"),
        ("current_setting", "text, boolean", "text"),
        ("set_config", "text, text, boolean", "text"),
        ("pg_advisory_xact_lock_shared", "int, int", "void"),
        ("pg_sequence_last_value", "regclass", "bigint"),
        ("pg_notify", "text, text", "void"),
        ("jsonb_typeof", "jsonb", "text"),
        ("now", "", "timestamptz"),
        ("clock_timestamp", "", "timestamptz"),
    ):
        mallory.execute(f"""
            create function trap.{name}({arguments}) returns {result} language plpgsql as $$
            begin insert into sprung values ('{name}'); raise exception 'the trap {name} was sprung'; end $$""")
    mallory.execute("""
        create function trap.sprung(a text, b text) returns boolean language plpgsql as $$
        begin insert into sprung values ('operator'); raise exception 'the operator was sprung'; end $$""")
    for operator in ("=", "<>", "~", "!~"):
        mallory.execute(f"create operator trap.{operator} (function = trap.sprung, leftarg = text, rightarg = text)")
    with pytest.raises(psycopg.errors.RaiseException, match="operator was sprung"):
        mallory.execute("select 'a'::text = 'a'::text")
