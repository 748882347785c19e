"""Who may make a table an outbox, who is published, and that no one borrows the rights of the schema's owner."""

import re
from contextlib import contextmanager

import psycopg
import pytest

from tests.paths import ROOT
from tests.sql.support import refused
from tests.sql.table_outboxes.table_outboxes import enable, payloads, published

pytestmark = pytest.mark.each_postgres

ENABLING = """
    grant usage on schema tide to app;
    grant execute on function tide.table_outbox_enable(regclass, text, text, int, int),
        tide.table_outbox_disable(regclass, boolean), tide.table_outbox_changed(), tide.table_outbox_tables(oid),
        tide.table_outbox_triggers(oid), tide.table_outbox_register(oid, text, text, int, int),
        tide.table_outbox_forget(oid, boolean), tide.table_name(oid) to app"""


@pytest.fixture
def db(database):
    with database.connect() as connection:
        yield connection


@contextmanager
def role(database, name):
    """A session of a role with a schema of its own, and no right on tide."""
    with database.admin() as admin:
        admin.execute(f"create role {name} login password 'secret'; create schema {name} authorization {name}")
    try:
        url = database.server.process.url_of(database.name, name, "secret")
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection
    finally:
        with database.admin() as admin:
            admin.execute(f"drop owned by {name} cascade; drop role {name}")


@pytest.fixture
def app(database):
    """The owner of tables, who has nothing to do with the owner of tide."""
    with role(database, "app") as connection:
        yield connection


def test_the_owner_of_a_table_makes_it_an_outbox_and_a_writer_needs_no_right_on_tide(database, db, app):
    db.execute(ENABLING)
    app.execute("create table app.orders (id int primary key)")
    assert enable(app, "app.orders") == "app.orders"
    with role(database, "writer") as writer:
        app.execute("grant usage on schema app to writer; grant insert on app.orders to writer")
        writer.execute("insert into app.orders values (1)")
        with refused("42501"):
            writer.execute("select * from tide.message")
    assert published(db, "app.orders") == [("insert", [{"id": 1}], [])]
    app.execute("select tide.table_outbox_disable('app.orders', drop_outbox => true)")
    assert db.execute("select count(*) from tide.outbox").fetchone() == (0,)


def test_another_role_than_the_owner_cannot(db, app):
    db.execute(ENABLING)
    db.execute("create table theirs (id int); grant all on theirs to app")
    with refused("42501", "theirs belongs to role", hint="owner of a table"):
        enable(app, "public.theirs")
    db.execute("select tide.table_outbox_enable('theirs')")
    with refused("42501"):
        app.execute("select tide.table_outbox_disable('public.theirs')")
    with refused("55000", "has the triggers"):
        app.execute("select tide.table_outbox_forget('public.theirs'::regclass, true)")
    db.execute("create table others (id int)")
    with refused("55000", "has no triggers"):
        app.execute("select tide.table_outbox_register('public.others'::regclass, null, 'statement', null, 1000)")


def test_without_the_grant_not_even_the_owner_can(app):
    app.execute("create table app.orders (id int)")
    with refused("42501", "schema tide"):
        enable(app, "app.orders")


def test_a_trigger_of_ones_own_making_publishes_nothing(db, app):
    """Neither its arguments nor its name nor the table's count: only tables that are listed."""
    db.execute(ENABLING)
    db.execute("create table orders (id int); select tide.table_outbox_enable('orders')")
    app.execute("""
        create table app.orders (id int);
        create trigger tide_outbox_insert after insert on app.orders referencing new table as inserted
            for each statement execute function tide.table_outbox_changed('public.orders')""")
    with refused("55000", "app.orders", "but is not one"):
        app.execute("insert into app.orders values (666)")
    assert payloads(db) == []


def test_row_level_security_hides_no_row_from_the_outbox(database, db):
    db.execute("create table orders (id int, who text)")
    db.execute("alter table orders enable row level security; alter table orders force row level security")
    db.execute("create policy own on orders using (who = current_user) with check (true)")
    enable(db)
    with role(database, "writer") as writer:
        db.execute("grant insert, update, select on orders to writer")
        db.execute("insert into orders values (1, 'tide_owner')")
        writer.execute("insert into public.orders values (2, 'writer'), (3, 'someone else')")
        writer.execute("update public.orders set id = id + 10")
    assert [inserted for _, inserted, _ in published(db)] == [
        [{"id": 1, "who": "tide_owner"}],
        [{"id": 2, "who": "writer"}, {"id": 3, "who": "someone else"}],
        [{"id": 12, "who": "writer"}],
    ]


TRAPS = """
    create table app.sprung (who text);
    create function app.{name}_trap(app.{type}) returns {result} language plpgsql as $$
    begin
        insert into app.sprung values (current_user);
        return '1';
    end $$;
    create cast (app.{type} as {result}) with function app.{name}_trap(app.{type}) {context}"""


@pytest.mark.parametrize(("result", "context"), [("json", ""), ("text", "as assignment"), ("json", "as implicit")])
def test_a_cast_of_the_tables_owner_is_never_called_with_the_rights_of_another(db, app, result, context):
    """to_jsonb calls casts to json that users made for their types: not here, wherever the type hides."""
    db.execute(ENABLING)
    app.execute("""
        create type app.mood as enum ('good');
        create type app.span as range (subtype = int);
        create domain app.soft as app.mood;
        create type app.pair as (n int, mood app.mood);
        create table app.t (id int primary key, m app.mood, s app.span, d app.soft, p app.pair, a app.mood[],
                            ds app.soft[], ps app.pair[], spans app.span[])""")
    app.execute(TRAPS.format(name="mood", type="mood", result=result, context=context))
    app.execute(TRAPS.partition(";")[2].format(name="span", type="span", result=result, context=context))
    if result == "json":
        app.execute("select to_jsonb(row('good'::app.mood))")
        assert app.execute("delete from app.sprung returning who").fetchall() == [("app",)]
    enable(app, "app.t", mode="row")
    app.execute("""insert into app.t values (1, 'good', '[1,2)', 'good', (1, 'good'), '{good,NULL}', '{good}',
                                             array[(2, 'good')]::app.pair[], '{"[1,2)"}')""")
    app.execute("update app.t set id = 2")
    app.execute("delete from app.t")
    assert app.execute("select who from app.sprung").fetchall() == []
    [row, *_] = [p["new"] for p in payloads(db, "app.t")]
    assert row == {
        "id": 1,
        "m": "good",
        "s": "[1,2)",
        "d": "good",
        "p": "(1,good)",
        "a": ["good", None],
        "ds": ["good"],
        "ps": ["(2,good)"],
        "spans": ["[1,2)"],
    }


def test_types_of_extensions_are_taken_apart_as_they_want(database, db):
    """Only a superuser can make a cast for a type of a superuser."""
    with database.admin() as admin:
        admin.execute("""
            create type shade as enum ('dark');
            create function shade_json(shade) returns json language sql return json_build_object('shade', $1::text);
            create cast (shade as json) with function shade_json(shade);
            grant execute on function shade_json(shade) to public; create schema if not exists public""")
    db.execute("create table t (s shade)")
    enable(db, "t")
    db.execute("insert into t values ('dark')")
    assert published(db, "public.t") == [("insert", [{"s": {"shade": "dark"}}], [])]


def test_a_writers_functions_and_operators_are_not_believed(db, app):
    db.execute(ENABLING)
    app.execute("""
        create table app.t (id int primary key, n numeric);
        create function app.trap(jsonb, jsonb) returns boolean language plpgsql as
            $$ begin raise exception 'sprung'; end $$;
        create operator app.= (function = app.trap, leftarg = jsonb, rightarg = jsonb);
        create operator app.-> (function = app.trap, leftarg = jsonb, rightarg = jsonb);
        create function app.to_jsonb(anyelement) returns jsonb language plpgsql as
            $$ begin raise exception 'sprung'; end $$;
        create function app.array_append(anycompatiblearray, anycompatible) returns anycompatiblearray
            language plpgsql as $$ begin raise exception 'sprung'; end $$;
        create temp table inserted (id int); create temp table table_outbox (id int);
        create temp table pg_class (id int)""")
    enable(app, "app.t", mode="row")
    app.execute("set search_path = app, pg_temp, pg_catalog")
    app.execute("insert into t values (1, 1)")
    app.execute("update t set n = 2")
    assert [p["new"] for p in payloads(db, "app.t")] == [{"id": 1, "n": 1}, {"id": 1, "n": 2}]


def test_the_page_of_the_documentation_runs_from_the_top_down(db):
    page = (ROOT / "docs" / "reference" / "table-outboxes.md").read_text()
    blocks = re.findall(r"^```sql\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 5
    for block in blocks:
        db.execute(block)
    assert [row for _, row, _ in published(db)][1] == [{"id": 1, "customer": "Ada", "total": 11}]
    headings = " ".join(re.findall(r"^### (tide\..*)$", page, re.MULTILINE))
    for name in ("enable", "disable", "status"):
        [(arguments,)] = db.execute(
            "select pg_get_function_arguments(oid) from pg_proc where proname = %s", [f"table_outbox_{name}"]
        )
        wanted = (
            re.sub(r"::\w+", "", arguments)
            .replace("integer", "int")
            .replace("NULL", "null")
            .replace("DEFAULT", "default")
        )
        assert f"tide.table_outbox_{name}({wanted})" in headings
