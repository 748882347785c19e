"""Which tables can be routed, by whom, and what happens to a row that cannot be a message."""

from contextlib import contextmanager

import psycopg
import pytest

from tests.sql.support import refused
from tests.sql.table_outboxes.routed_tables import IDS, TABLE, ids, insert, messages, route
from tests.sql.table_outboxes.table_outboxes import enable, status


@pytest.fixture
def db(database):
    with database.connect() as connection:
        connection.execute(TABLE)
        yield connection


@contextmanager
def role(database, name):
    with database.admin() as admin:
        admin.execute(f"create role {name} login password 'secret'")
    try:
        with psycopg.connect(database.server.process.url_of(database.name, name, "secret"), autocommit=True) as session:
            yield session
    finally:
        with database.admin() as admin:
            admin.execute(f"drop owned by {name} cascade; drop role {name}")


def test_an_application_that_may_insert_and_nothing_else_publishes(database, db):
    route(db)
    with role(database, "app") as app:
        db.execute("grant insert on public.outbox to app")
        insert(app, 1)
        for forbidden in (
            "select * from tide.message", "select tide.outbox_publish('public.outbox', '1')",
            "select tide.table_outbox_route('public.outbox')",
            "select tide.table_route_append('public.outbox'::regclass, array['1'::jsonb], array['k'], null)",
            "select tide.table_routed()",
        ):  # fmt: skip
            with refused("42501"):
                app.execute(forbidden)
    assert ids(db) == [IDS[1]]


def test_row_security_hides_no_row(database, db):
    db.execute(
        "alter table public.outbox enable row level security; alter table public.outbox force row level security"
    )
    db.execute("create policy add_only on public.outbox for insert with check (true)")
    route(db)
    with role(database, "app") as app:
        db.execute("grant insert on public.outbox to app")
        insert(app, 1)
    assert ids(db) == [IDS[1]]


def test_an_admin_who_owns_the_table_may_route_it_and_one_who_does_not_may_not(database, db):
    with role(database, "admin") as admin:
        with database.admin() as superuser:
            superuser.execute("grant create on schema public to admin")
        db.execute("select tide.grant_admin('admin')")
        with refused("42501", "belongs to role"):
            route(admin)
        admin.execute(TABLE.replace("public.outbox", "public.mine"))
        admin.execute("insert into mine values (%s, 'a', 'b', 'c', '1')", [IDS[1]])
        route(admin, "mine", existing=True)
        admin.execute("insert into mine values (%s, 'a', 'b', 'c', '2')", [IDS[2]])
        admin.execute("create table forged (a int); create trigger t after insert on forged referencing new table as"
                      " inserted for each statement execute function tide.table_routed()")  # fmt: skip
        with refused("55000", "not routed"):
            admin.execute("insert into forged values (1)")
    assert ids(db, "public.mine") == [IDS[1], IDS[2]]


@pytest.mark.parametrize(
    ("change", "options", "sqlstate", "text"),
    [
        ("drop column payload", {}, "42703", "no column 'payload'"),
        ("drop column aggregateid", {}, "42703", "no column 'aggregateid'"),
        ("alter column aggregatetype drop not null", {}, "42P16", "may be null"),
        ("drop constraint outbox_pkey, alter column id drop not null", {}, "42P16", "may be null"),
        ("alter column payload type bytea using null", {}, "42804", "is bytea"),
        ("add column other int", {"columns": {"name": "other"}}, "22023", 'no "name" among'),
        ("add column other int", {"columns": {"id": "ids"}}, "42703", "no column 'ids'"),
        ("add column other int", {"headers": {"type": "other"}}, "22023", 'the header "type"'),
        ("add column other int", {"headers": {"x": "none"}}, "42703", "no column 'none'"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_routed_is_refused_and_left_as_it_was(db, change, options, sqlstate, text):
    db.execute(f"alter table public.outbox {change}")
    with refused(sqlstate, text):
        route(db, **options)
    assert db.execute("select count(*) from pg_trigger where tgname = 'tide_outbox_route'").fetchone() == (0,)
    assert db.execute("select count(*) from tide.outbox").fetchone() == (0,)


def test_what_is_no_table_of_ones_own_is_refused(db):
    db.execute("create view v as table public.outbox")
    with refused("42809", "a view"):
        route(db, "v")
    enable(db, "public.outbox", outbox="rows")
    with refused("42710", "of another mode"):
        route(db)
    db.execute("select tide.table_outbox_disable('public.outbox')")
    route(db)
    with refused("42710", "routed"):
        enable(db, "public.outbox", outbox="rows")
    with refused("42710", "routed to outbox"):
        route(db, outbox="another")


def test_a_row_that_cannot_be_a_message_is_refused_and_others_are_not(db):
    route(db, max_payload_bytes=1000)
    with refused("54000"):
        insert(db, 1, "x" * 2000)
    db.execute("select tide.outbox_disable('public.outbox')")
    with refused("55000", "disabled"):
        insert(db, 2)
    db.execute("select tide.outbox_enable('public.outbox')")
    db.execute("alter table public.outbox alter aggregatetype drop not null, drop constraint outbox_pkey,"
               " alter id drop not null")  # fmt: skip
    db.execute("insert into public.outbox (payload, aggregateid, type) values ('1', 'k', 't')")
    assert messages(db) == [("k", {"type": "t"}, 1)], "a row without an id is still delivered"
    db.execute("alter table public.outbox rename payload to body")
    with refused("55000", 'lost its column "payload"'):
        db.execute("insert into public.outbox (aggregateid, type) values ('k', 't')")
    assert "takes no rows" in status(db, "public.outbox")["problem"]
    db.execute(
        "delete from public.outbox; alter table public.outbox alter aggregatetype set not null, alter id set not null"
    )
    route(db, columns={"payload": "body"})
    insert(db, 1)
    assert messages(db)[-1][1]["id"] == IDS[1]
