"""Names are data: whatever PostgreSQL takes as a name works, or is refused clearly."""

import psycopg
import pytest
from psycopg import sql

from tests.sql.inbox.inboxes import call
from tests.sql.security.logins import logins
from tests.sql.support import publish, refused
from tests.sql.table_outboxes.table_outboxes import enable, payloads, published

ODD = ['quo"te; --', "apos'trophe\\", "%s %I %%", "Größe 订单", "n" * 63, "ü" * 31, "select", "a.b"]
odd = pytest.mark.parametrize("name", ODD)


@pytest.fixture
def db(database):
    with database.connect() as connection:
        yield connection


@pytest.mark.parametrize("mode", ["statement", "row"])
def test_columns_of_an_outbox_table_may_be_named_as_anything_inside(db, mode):
    """Also as what the functions call rows, transition tables and their own variables."""
    columns = ["i", "d", "s", "j", "inserted", "deleted", "new_row", "old_row", "news", "columns", "headers", "n", "o"]
    listed = ", ".join(f'"{name}" int' for name in columns)
    db.execute(f"create table t (id int primary key, {listed})")
    enable(db, "t", mode=mode)
    row = {"id": 1} | {name: number for number, name in enumerate(columns)}
    db.execute(f"insert into t values ({', '.join(str(value) for value in row.values())})")
    db.execute("update t set i = 100")
    db.execute("delete from t")
    if mode == "row":
        found = [(p["op"], p["new"], p["old"]) for p in payloads(db, "public.t")]
        one = lambda row: row  # noqa: E731
    else:
        found = published(db, "public.t")
        one = lambda row: [row] if row else []  # noqa: E731
    later = row | {"i": 100}
    assert found == [
        ("insert", one(row), one(None)),
        ("update", one(later), one(row)),
        ("delete", one(None), one(later)),
    ]


def work_off(db, inbox):
    """All that is done with an inbox in its life, which has the messages of two aggregates."""
    assert call(db, "tide.inbox_write(%s, array['a', 'b', 'c'], array['t', 't', 't'], array['s', 's', 's'],"
                    " array['x', 'x', 'y'], array[1, 3, 1], array['1', '2', '3'], array['{}', '{}', '{}'],"
                    " array['', '', ''])", inbox) == 3  # fmt: skip
    assert db.execute("select * from tide.inbox_look(%s, array['a'], array['1'])", [inbox]).fetchall() == [
        (False, True)
    ]
    assert db.execute("select * from tide.inbox_ordering_gaps(%s)", [inbox]).fetchall() == [("x", 2, 3)]
    for worker in ODD:
        claimed = db.execute("select event_id from tide.inbox_claim(%s, %s, 1)", [inbox, worker]).fetchall()
        assert claimed == [("a",)]
        assert call(db, "tide.inbox_release(%s, array['a'], %s)", inbox, worker) == 1
    assert call(db, "tide.inbox_mark_failed(%s, 'a', %s)", inbox, ODD[1]) == "retry"
    assert call(db, "tide.inbox_mark_processed(%s, array['a', 'b', 'c'])", inbox) == 3
    assert call(db, "tide.replay_inbox_messages(%s, array['a'])", inbox) == 1
    assert call(db, "tide.inbox_health(%s)", inbox)["pending"] == 1
    assert call(db, "tide.inbox_retain(%s)", inbox) == 0


@odd
def test_an_inbox_may_be_in_a_schema_of_any_name(database, db, name):
    db.execute(sql.SQL("create schema {}").format(sql.Identifier(name)))
    call(db, "tide.inbox_create('letters', %s)", name)
    call(db, "tide.enable_inbox_ordering('letters')")
    call(db, "tide.enable_inbox_priority('letters', 'retry_count')")
    work_off(db, "letters")
    assert db.execute("select table_schema, pending from tide.inbox_status()").fetchall() == [(name, 1)]
    view = sql.SQL("select event_id from {}.next_letters").format(sql.Identifier(name))
    assert db.execute(view).fetchall() == [("a",)]
    with logins(database) as make:
        role, _ = make()
        call(db, "tide.inbox_grant('letters', %s)", role)
        call(db, "tide.inbox_revoke('letters', %s)", role)
    call(db, "tide.disable_inbox_priority('letters')")
    call(db, "tide.disable_inbox_ordering('letters')")
    call(db, "tide.inbox_drop('letters')")
    [(left,)] = db.execute(
        "select count(*) from pg_class where relnamespace = %s::text::regnamespace", [quoted(db, name)]
    )
    assert left == 0


@odd
def test_a_tracked_table_and_its_columns_may_have_any_name(db, name):
    table = sql.Identifier(name, name).as_string(db)
    column = sql.Identifier(name)
    db.execute(sql.SQL("create schema {0}; create table {0}.{0} ({0} text primary key)").format(column))
    call(db, "tide.enable_inbox_tracking(%s, 'letters', %s)", table, name)
    second = name[:28] + " 2"
    db.execute(sql.SQL("alter table {0}.{0} add {1} int").format(column, sql.Identifier(second)))
    call(db, "tide.enable_inbox_ordering('letters')")
    call(db, "tide.enable_inbox_priority('letters', %s)", second)
    work_off(db, "letters")
    call(db, "tide.enable_inbox_ordering('letters', %s, %s)", name, second)
    assert db.execute("select * from tide.inbox_ordering_gaps('letters')").fetchall() == []
    assert db.execute("select event_id from tide.inbox_claim('letters', 'w')").fetchall() == [("a",)]
    call(db, "tide.disable_inbox_tracking('letters')")
    assert db.execute(sql.SQL("select count(*) from {0}.{0}").format(column)).fetchone() == (3,)


@odd
@pytest.mark.parametrize("mode", ["row", "statement"])
def test_a_table_outbox_and_its_columns_may_have_any_name(db, name, mode):
    table = sql.Identifier(name, name).as_string(db)
    db.execute(sql.SQL("create schema {0}; create table {0}.{0} ({0} text primary key)").format(sql.Identifier(name)))
    if name not in ("select", "a.b"):
        with refused("42602", hint="outbox => ..."):
            enable(db, table, mode=mode)
    assert enable(db, table, mode=mode, outbox="box") == "box"
    db.execute(sql.SQL("insert into {0}.{0} values ({1})").format(sql.Identifier(name), sql.Literal(name)))
    [payload] = payloads(db, "box")
    assert payload["key" if mode == "row" else "inserted"] == ({name: name} if mode == "row" else [{name: name}])
    found = db.execute("select source_table, intact, problem from tide.table_outbox_status()").fetchall()
    assert found == [(f"{name}.{name}", True, None)]
    with pytest.raises(psycopg.errors.DuplicateObject) as caught:
        enable(db, table, mode="row" if mode == "statement" else "statement")
    db.execute((caught.value.diag.message_hint or "").partition(": ")[2])
    assert db.execute("select count(*) from tide.table_outbox").fetchone() == (0,)


@odd
def test_a_role_may_have_any_name(database, db, name):
    """It gets rights, uses them, loses them, and is distinguished in history and refusals."""
    call(db, "tide.outbox_create('orders')")
    call(db, "tide.inbox_create('letters')")
    with logins(database) as make:
        _, url = make("grant_admin", "grant_consumer", "grant_relay", "grant_reader", "grant_operator", name=name)
        with psycopg.connect(url, autocommit=True) as session:
            call(session, "tide.relay_set_outbox('p', 'orders', '{\"sink_type\": \"memory\"}')")
            assert call(session, "changed_by from tide.relay_config_history('p')") == name
            call(session, "tide.outbox_grant_publish('orders', %s)", name)
            assert publish(session) == 1
            call(session, "tide.outbox_revoke_publish('orders', %s)", name)
            with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
                publish(session)
            db.execute(caught.value.diag.message_hint.partition("run: ")[2])
            assert publish(session) == 2
            call(session, "tide.inbox_grant('letters', %s)", name)
            assert session.execute("select * from tide.inbox_claim('letters', 'w')").fetchall() == []
            call(session, "tide.inbox_revoke('letters', %s)", name)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute("select * from tide.inbox_claim('letters', 'w')")


@odd
def test_consumers_may_have_any_name_and_groups_none_that_is_refused_clearly(db, name):
    call(db, "tide.outbox_create('orders')")
    call(db, "tide.create_consumer_group('group', 'orders')")
    publish(db)
    assert len(db.execute("select * from tide.poll_outbox('group', %s)", [name]).fetchall()) == 1
    call(db, "tide.extend_lease('group', %s)", name)
    assert call(db, "consumer from tide.consumer_status('group')") == name
    assert call(db, "tide.commit_offset('group', %s, 1)", name) == 1
    for what in (
        "tide.create_consumer_group(%s, 'orders')",
        "tide.outbox_create(%s)",
        "tide.inbox_create(%s)",
        "tide.relay_set_outbox(%s, 'orders', 'own', '{\"sink_type\": \"memory\"}')",
    ):
        if name == "select" or (name in ("n" * 63, "a.b") and "inbox" not in what):
            call(db, what, name)
        else:
            with refused("42602", hint=" "):
                call(db, what, name)


def quoted(db, name):
    return sql.Identifier(name).as_string(db)
