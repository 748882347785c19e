"""Tables that are outboxes: nothing that others have put on them runs with the rights of the owner of tide."""

import psycopg
import pytest

from tests.sql.security.logins import logins
from tests.sql.support import refused
from tests.sql.table_outboxes.table_outboxes import enable, payloads, status

pytestmark = pytest.mark.each_postgres

TABLE = """
    create table app.sprung (who text);
    grant insert on app.sprung to public;
    create function app.trap() returns boolean language plpgsql as
        $$ begin insert into app.sprung values (current_user); return true; end $$;
    create function app.value() returns text language plpgsql as $$ begin perform app.trap(); return 'x'; end $$;
    create function app.pure(text) returns text language plpgsql immutable as
        $$ begin perform app.trap(); return $1; end $$;
    create function app.fire() returns trigger language plpgsql as
        $$ begin perform app.trap(); return coalesce(new, old); end $$;
    create type app.mood as enum ('good', 'bad');
    create function app.compare(app.mood, app.mood) returns boolean language plpgsql as
        $$ begin perform app.trap(); return true; end $$;
    create function app.told(app.mood) returns json language plpgsql as
        $$ begin perform app.trap(); return '1'; end $$;
    create cast (app.mood as json) with function app.told(app.mood);
    create operator app.= (function = app.compare, leftarg = app.mood, rightarg = app.mood);
    create operator app.|| (function = app.compare, leftarg = app.mood, rightarg = app.mood);
    create domain app.checked as text check (app.trap());
    create table app.t (
        id text primary key default app.value(),
        mood app.mood default 'good',
        checked app.checked default 'c',
        made text generated always as (app.pure('g')) stored,
        plain text check (app.trap())
    );
    create index on app.t (app.pure(plain));
    create trigger t before insert or update or delete on app.t
        for each row when (app.trap()) execute function app.fire();
    create trigger s after insert or update or delete or truncate on app.t
        for each statement execute function app.fire();
    create trigger z_s before insert or update or delete or truncate on app.t
        for each statement execute function app.fire();
    alter table app.t enable row level security;
    alter table app.t force row level security;
    create policy p on app.t using (app.trap()) with check (app.trap());
    grant usage on schema app to public;
    grant all on app.t to public"""


@pytest.fixture
def db(database):
    with database.connect() as connection:
        yield connection


@pytest.fixture
def sessions(database):
    """The owner of the table, for whom tide's owner may act, and a writer."""
    with logins(database) as make:
        (_, app_url), (_, writer_url) = make(name="app"), make(name="writer")
        with database.admin() as admin:
            admin.execute("create schema app authorization app; grant app to tide_owner")
        with (
            psycopg.connect(app_url, autocommit=True) as app,
            psycopg.connect(writer_url, autocommit=True) as writer,
        ):
            app.execute(TABLE)
            yield app, writer
        with database.admin() as admin:
            admin.execute("drop schema app cascade")


@pytest.mark.parametrize("mode", ["statement", "row"])
def test_code_on_a_table_runs_as_its_writer_and_never_as_tides_owner(db, sessions, mode):
    app, writer = sessions
    enable(db, "app.t", mode=mode)
    writer.execute("set search_path = app, public")
    writer.execute("insert into t (plain) values ('a')")
    writer.execute("update t set mood = 'bad', id = 'y'")
    writer.execute("delete from t")
    writer.execute("truncate t")
    assert status(db, "app.t")["problem"] is None
    enable(db, "app.t", mode=mode)
    db.execute("select tide.table_outbox_disable('app.t')")
    ran_as = {who for (who,) in app.execute("select distinct who from app.sprung")}
    assert "writer" in ran_as
    assert ran_as <= {"writer", "app"}
    assert len(payloads(db, "app.t")) == (5 if mode == "row" else 4)


def test_only_its_owner_makes_a_table_an_outbox_though_others_may_make_triggers_on_it(database, db, sessions):
    _, writer = sessions
    db.execute("select tide.grant_admin('writer')")
    with refused("42501", "app.t belongs to role", hint="owner of a table"):
        enable(writer, "app.t")
    # A role that makes all the triggers by hand had the right to do so, and publishes no more than the table's changes.
    with refused("55000", "has no triggers yet"):
        writer.execute("select tide.table_outbox_register('app.t'::regclass, null, 'statement', null, 1000)")


# Triggers made by hand with the functions that tide.grant_admin lets a role use: name, and what follows it.
HAND_MADE = {
    "no_transition_tables": ("{own}", "after {op} on app.small for each statement"),
    "for_each_row": ("{own}", "after {op} on app.small for each row"),
    "before": ("{own}", "before {op} on app.small for each statement"),
    "another_name": ("mine", "after {op} on app.small for each statement"),
    "truncating": ("tide_outbox_truncating", "before {op} on app.small for each statement"),
    "other_tables": ("{own}", "after {op} on app.small referencing {others} for each statement"),
    "with_a_condition": ("{own}", "after {op} on app.small referencing {rows} for each statement when (app.trap())"),
    "never": ("{own}", "after {op} on app.small referencing {rows} for each statement when (false)"),
}
STATEMENTS = {
    "insert": ("insert into app.small values ('x', 't', 'p')", "new table as {1}"),
    "update": ("update app.small set id = 'y'", "old table as {0} new table as {1}"),
    "delete": ("delete from app.small", "old table as {0}"),
}


@pytest.mark.parametrize(
    ("function", "op"), [("table_outbox_changed", op) for op in STATEMENTS] + [("table_routed", "insert")]
)
def test_a_trigger_function_reads_only_what_a_trigger_of_ours_hands_over(db, sessions, function, op):
    """Without transition tables their names are those of relations that the session has made."""
    app, _ = sessions
    app.execute("create table app.small (id text not null, type text not null, payload text)")
    app.execute("insert into app.small values ('x', 't', 'p')")
    db.execute("select tide.grant_admin('app')")
    if function == "table_routed":
        columns = '{"aggregate_type": "type", "aggregate_id": "id"}'
        app.execute("select tide.table_outbox_route('app.small', columns => %s)", [columns])
    else:
        enable(app, "app.small")
    for table in ("inserted", "deleted", "a", "b"):
        app.execute(f"create temp view {table} as select app.value() as id, 't' as type, app.value() as payload")
    for (name,) in app.execute("select tgname from pg_trigger where tgrelid = 'app.small'::regclass").fetchall():
        app.execute(f"drop trigger {name} on app.small")
    own = "tide_outbox_route" if function == "table_routed" else f"tide_outbox_{op}"
    statement, tables = STATEMENTS[op]
    for case, (name, form) in HAND_MADE.items():
        named = name.format(own=own)
        made = form.format(op=op, rows=tables.format("deleted", "inserted"), others=tables.format("a", "b"))
        app.execute(f"create trigger {named} {made} execute function tide.{function}()")
        if case != "never":
            with refused("55000", "app.small", "but is not one"):
                app.execute(statement)
        assert status(db, "app.small")["problem"] is not None, case
        app.execute(f"drop trigger {named} on app.small")
    assert {who for (who,) in app.execute("select distinct who from app.sprung")} <= {"app"}
    assert payloads(db, "app.small") == []


def test_a_routed_column_of_another_type_is_not_cast(db, sessions):
    app, writer = sessions
    app.execute("create table app.events (id text not null, kind text not null, payload text)")
    db.execute("select tide.grant_admin('app')")
    columns = '{"aggregate_type": "kind", "aggregate_id": "id", "type": "kind"}'
    app.execute("select tide.table_outbox_route('app.events', columns => %s)", [columns])
    app.execute("""
        create function app.as_text(app.mood) returns text language plpgsql as
            $$ begin perform app.trap(); return '1'; end $$;
        create cast (app.mood as text) with function app.as_text(app.mood);
        alter table app.events alter payload type app.mood using 'good', alter kind type app.checked;
        grant insert on app.events to writer;
        delete from app.sprung""")
    writer.execute("insert into app.events values ('1', 'k', 'good')")
    assert {who for (who,) in app.execute("select distinct who from app.sprung")} <= {"app", "writer"}
    assert db.execute("select payload from tide.message").fetchall() == [("good",)]
