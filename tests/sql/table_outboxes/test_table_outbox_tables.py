"""Which tables can be outboxes, how their values look, and what becomes of tables that change."""

import pytest
from psycopg import sql

from tests.sql.support import make_outbox, make_pipeline, publish, refused
from tests.sql.table_outboxes.table_outboxes import enable, payloads, published, status

pytestmark = pytest.mark.each_postgres


@pytest.fixture
def db(database):
    with database.connect() as connection:
        yield connection


def test_values_look_the_same_whatever_the_writer_has_set(db):
    db.execute("""
        create table t (id int primary key, at timestamptz, span interval, b bytea, f float8, n numeric, m money,
                        days daterange, a text[], j json)""")
    enable(db, "t")
    values = "'2026-01-02 03:04:05.5+01', '1 day 2 hours', '\\x01ff', 0.30000000000000004, 'NaN', 12.5, "
    values += "'[2026-01-02,2026-02-01)', '{x,NULL}', '{\"a\": [1]}'"
    db.execute(f"insert into t values (1, {values})")
    for setting in ("datestyle = 'German'", "timezone = 'Asia/Tokyo'", "intervalstyle = 'sql_standard'"):
        db.execute(f"set {setting}")
    db.execute("set extra_float_digits = -10; set bytea_output = 'escape'")
    db.execute(f"insert into t values (2, {values.replace('2026-01-02,2026-02-01', '02.01.2026,01.02.2026')})")
    first, second = ([row] for p in payloads(db, "public.t") for row in p["inserted"])
    assert first[0] | {"id": 2} == second[0]
    assert first[0] == {
        "id": 1,
        "at": "2026-01-02T02:04:05.5+00:00",
        "span": "P1DT2H",
        "b": "\\x01ff",
        "f": 0.30000000000000004,
        "n": "NaN",
        "m": "$12.50",
        "days": "[2026-01-02,2026-02-01)",
        "a": ["x", None],
        "j": {"a": [1]},
    }


def test_infinite_numbers_and_times_are_texts(db):
    db.execute("create table t (n numeric, f float8, at timestamp, d date)")
    enable(db, "t")
    db.execute("insert into t values ('Infinity', '-Infinity', 'infinity', '-infinity')")
    [(_, [row], _)] = published(db, "public.t")
    assert row == {"n": "Infinity", "f": "-Infinity", "at": "infinity", "d": "-infinity"}


def test_enums_domains_and_composite_types_of_users(db):
    db.execute("""
        create type mood as enum ('good', 'bad');
        create domain positive as int check (value > 0);
        create type place as (town text, number positive);
        create type feeling as (mood mood, since date);
        create table t (m mood, ms mood[], p positive, at place, ats place[], f feeling)""")
    enable(db, "t")
    db.execute("""insert into t values ('good', '{bad,NULL,good}', 7, ('Bath', 5), array[('Rye', 6)]::place[],
                                        ('bad', '2026-01-02')), (null, null, null, null, null, null)""")
    [(_, rows, _)] = published(db, "public.t")
    assert rows[0] == {
        "m": "good",
        "ms": ["bad", None, "good"],
        "p": 7,
        "at": {"town": "Bath", "number": 5},
        "ats": [{"town": "Rye", "number": 6}],
        "f": {"mood": "bad", "since": "2026-01-02"},
    }
    assert set(rows[1].values()) == {None}


def test_generated_and_identity_columns(db, pg):
    kinds = ["stored", "virtual"] if pg.version >= 18 else ["stored"]
    columns = ", ".join(f"{kind} int generated always as (n * 2) {kind}" for kind in kinds)
    db.execute(
        sql.SQL("create table t (id int generated always as identity primary key, n int, {})").format(
            sql.SQL(columns)  # type: ignore[arg-type]
        )
    )
    enable(db, "t", mode="row")
    db.execute("insert into t (n) values (4)")
    db.execute("update t set n = 5")
    wanted = {"id": 1, "n": 5} | dict.fromkeys(kinds, 10)
    assert payloads(db, "public.t")[1] == {
        "v": 1,
        "op": "update",
        "key": {"id": 1},
        "new": wanted,
        "old": {"id": 1, "n": 4} | dict.fromkeys(kinds, 8),
    }


def test_columns_that_are_added_renamed_and_dropped(db):
    db.execute("create table t (id int primary key, a text, b int)")
    enable(db, "t", mode="row")
    db.execute("insert into t values (1, 'x', 2)")
    db.execute("alter table t add column c text default 'new'")
    db.execute("update t set b = 3")
    db.execute("alter table t rename column id to number")
    db.execute("alter table t drop column a")
    db.execute("update t set b = 4")
    db.execute("alter table t alter column b type text")
    db.execute("update t set b = 'five'")
    assert [(p["key"], p["new"]) for p in payloads(db, "public.t")] == [
        ({"id": 1}, {"id": 1, "a": "x", "b": 2}),
        ({"id": 1}, {"id": 1, "a": "x", "b": 3, "c": "new"}),
        ({"number": 1}, {"number": 1, "b": 4, "c": "new"}),
        ({"number": 1}, {"number": 1, "b": "five", "c": "new"}),
    ]


def test_a_table_that_is_renamed_or_moved_keeps_its_outbox(db):
    db.execute("create table orders (id int); create schema archive")
    enable(db)
    db.execute("alter table orders rename to old_orders; alter table old_orders set schema archive")
    db.execute("insert into archive.old_orders values (1)")
    assert len(payloads(db)) == 1
    assert db.execute("select headers ->> 'table' from tide.message").fetchone() == ("archive.old_orders",)
    seen = status(db, "archive.old_orders")
    assert (seen["source_table"], seen["outbox"], seen["problem"]) == ("archive.old_orders", "public.orders", None)
    assert enable(db, "archive.old_orders") == "public.orders"
    db.execute("create table orders (id int)")
    with refused("42710", "archive.old_orders", hint="outbox =>"):
        enable(db)


def test_a_dropped_table_is_shown_and_its_name_can_be_used_again(db):
    db.execute("create table orders (id int)")
    enable(db)
    db.execute("insert into orders values (1)")
    db.execute("drop table orders")
    [(name, problem)] = db.execute("select source_table, problem from tide.table_outbox_status()").fetchall()
    assert name == "public.orders"
    assert "was dropped" in problem
    db.execute(problem.split(": ", 1)[1])
    assert db.execute("select count(*) from tide.table_outbox_status()").fetchone() == (0,)
    db.execute("create table orders (id int)")
    enable(db)
    db.execute("insert into orders values (2)")
    assert [row for _, row, _ in published(db)] == [[{"id": 1}], [{"id": 2}]]


def test_names_of_every_kind(db):
    for name in ('odd "name" with spaces', "Größe", "x" * 63):
        table = sql.Identifier(name)
        db.execute(sql.SQL('create table {} ("a ""b" int primary key, "ü" text)').format(table))
        quoted = table.as_string(db)
        if name[0] != "x":
            with refused("42602", name, hint="outbox => "):
                enable(db, quoted)
        enable(db, quoted, outbox="box", mode="row")
        db.execute(sql.SQL("insert into {} values (1, 'y')").format(table))
        assert db.execute("select payload -> 'new', headers ->> 'table' from tide.message").fetchone() == (
            {'a "b': 1, "ü": "y"},
            f"public.{name}",
        )
        db.execute("select tide.table_outbox_disable(%s, drop_outbox => true)", [quoted])


def test_a_disabled_trigger_is_shown_and_mended(db):
    db.execute("create table orders (id int)")
    enable(db)
    db.execute("alter table orders disable trigger tide_outbox_delete")
    assert "tide_outbox_delete of public.orders is disabled" in status(db)["problem"]
    enable(db)
    assert status(db)["problem"] is None


def test_a_lost_key_is_shown_and_changes_are_refused_until_it_is_back(db):
    db.execute("create table orders (id int primary key)")
    enable(db, mode="row")
    db.execute("alter table orders drop constraint orders_pkey")
    assert "primary key" in status(db)["problem"]
    with refused("55000", "lost its primary key", hint="Add a primary key"):
        db.execute("insert into orders values (1)")
    db.execute("alter table orders add primary key (id)")
    db.execute("insert into orders values (1)")
    assert len(payloads(db)) == 1


def test_a_table_without_a_key_has_statement_mode_only_unless_it_has_a_replica_identity(db):
    db.execute("create table orders (id int not null, n int)")
    with refused("55000", "has no key", hint="statement"):
        enable(db, mode="row")
    assert db.execute("select count(*) from pg_trigger where tgname ~ '^tide'").fetchone() == (0,)
    db.execute("create unique index by_id on orders (id); alter table orders replica identity using index by_id")
    enable(db, mode="row")
    db.execute("insert into orders values (5, 6)")
    assert payloads(db)[0]["key"] == {"id": 5}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("v", "a view"),
        ("mv", "a materialized view"),
        ("s", "a sequence"),
        ("ft", "a foreign table"),
        ("parts", "with a foreign table as a partition"),
        ("tt", "a temporary table"),
        ("pg_catalog.pg_class", "a table of the system"),
        ("tide.outbox", "a table of tide-relay itself"),
        ("p", "a partition of"),
        ("parent", "part of a tree of inheritance"),
        ("child", "part of a tree of inheritance"),
    ],
)
def test_what_cannot_be_an_outbox_is_refused(database, db, name, why):
    with database.admin() as admin:
        admin.execute("create foreign data wrapper fdw; create server far foreign data wrapper fdw")
        admin.execute("grant usage on foreign server far to public")
    db.execute("""
        create view v as select 1; create materialized view mv as select 1; create sequence s;
        create temp table tt (id int); create foreign table ft (id int) server far;
        create table parts (id int) partition by list (id); create table p partition of parts for values in (1);
        create foreign table fp partition of parts for values in (2) server far;
        create table parent (id int); create table child () inherits (parent)""")
    with refused("42809", f"cannot be an outbox: it is {'a partition' if name == 'p' else ''}"):
        enable(db, name)
    with refused("42809", why):
        enable(db, name)


def test_wrong_arguments_are_refused(db):
    db.execute("create table orders (id int primary key)")
    with refused("22023", "'rows'", hint="'statement'"):
        enable(db, mode="rows")
    with refused("42602", "'no good'"):
        enable(db, outbox="no good")
    enable(db)
    with refused("42710", "already", hint="tide.table_outbox_disable"):
        enable(db, mode="row")
    with refused("42710", "already"):
        enable(db, outbox="other")
    with refused("42P01", "NULL"):
        db.execute("select tide.table_outbox_enable(null)")


def test_retention_and_limit_are_those_given_or_those_of_the_settings(db):
    db.execute("create table orders (id int); create table other (id int)")
    db.execute("select tide.setting_set('outbox_retention_hours', '7')")
    enable(db, retention_hours=48, max_payload_bytes=5000)
    enable(db, "other")
    rows = db.execute("select name, retention_hours, max_payload_bytes from tide.outbox order by name").fetchall()
    assert rows == [("public.orders", 48, 5000), ("public.other", 7, 1048576)]
    enable(db, "other", retention_hours=9)
    assert db.execute("select retention_hours from tide.outbox where name = 'public.other'").fetchone() == (9,)


def test_several_tables_and_publishers_may_share_an_outbox(db):
    db.execute("create table orders (id int); create table other (id int)")
    make_outbox(db, "all")
    enable(db, outbox="all")
    enable(db, "other", outbox="all")
    publish(db, "all", "by hand")
    db.execute("insert into orders values (1); insert into other values (2)")
    assert db.execute("select headers ->> 'table' from tide.message order by id").fetchall() == [
        (None,),
        ("public.orders",),
        ("public.other",),
    ]
    with refused("2BP01", "orders, ", hint="tide.table_outbox_disable"):
        db.execute("select tide.outbox_drop('all')")
    with refused("2BP01", "other"):
        db.execute("select tide.table_outbox_disable('orders', drop_outbox => true)")
    assert status(db)["intact"]


def test_an_outbox_is_not_dropped_under_a_pipeline(database, db):
    db.execute("create table orders (id int)")
    enable(db)
    make_pipeline(database, outbox="public.orders")
    with refused("2BP01", "read by pipelines"):
        db.execute("select tide.table_outbox_disable('orders', drop_outbox => true)")
    assert status(db)["intact"]
