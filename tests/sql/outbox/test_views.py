"""INSERT into the view of an outbox publishes: the same protocol, limits and rights as a call."""

import psycopg
import pytest
from psycopg import sql

from tests.sql.security.logins import logins
from tests.sql.support import (
    begin,
    horizon,
    listen,
    make_outbox,
    make_pipeline,
    publish,
    reader_of,
    refused,
    relay_session,
)

pytestmark = pytest.mark.each_postgres

KINDS = ("publisher", "reader", "relay", "admin", "consumer")


@pytest.fixture
def db(database):
    with database.connect() as connection:
        make_outbox(connection)
        yield connection


@pytest.fixture
def login(database):
    with logins(database) as make:
        yield make


@pytest.fixture
def as_role():
    """Opens sessions, and closes them."""
    opened = []

    def open_session(url):
        opened.append(psycopg.connect(url, autocommit=True))
        return opened[-1]

    yield open_session
    for session in opened:
        session.close()


def insert(connection, payload='{"a": 1}', outbox="orders"):
    into = sql.SQL("insert into tide_outbox.{} (payload) values (%s::jsonb) returning id")
    return connection.execute(into.format(sql.Identifier(outbox)), [payload]).fetchone()[0]


def views(connection):
    found = connection.execute("select viewname from pg_views where schemaname = 'tide_outbox' order by 1").fetchall()
    return [name for (name,) in found]


def test_what_is_read_is_what_was_inserted(database):
    make_pipeline(database)
    with database.connect() as db:
        insert(db, '{"n": 1}')
        db.execute("""insert into tide_outbox.orders (key, payload, headers)
                      values ('k', '[2]', '{"a": "b"}'), ('Ü', 'null', '{}')""")
    with reader_of(database) as reader:
        found = [(m.id, m.key, m.payload, m.headers) for m in reader.read(0).messages]
    assert found == [(1, None, b'{"n": 1}', b"{}"), (2, "k", b"[2]", b'{"a": "b"}'), (3, "Ü", b"null", b"{}")]


def test_batches_are_bounded_by_bytes_that_no_one_stored(database, monkeypatch):
    monkeypatch.setattr("relay.drains.messages.MAX_BATCH_BYTES", 1000)
    make_pipeline(database)
    with database.connect() as db:
        for size in (400, 400, 400, 5000, 10):
            insert(db, f'"{"x" * size}"')
    with reader_of(database) as reader:
        read, after = [], 0
        while batch := reader.read(after).messages:
            read.append([message.id for message in batch])
            after = batch[-1].id
    assert read == [[1, 2, 3], [4], [5]]


def test_a_statement_that_writes_and_publishes_evaluates_what_it_publishes_once(db):
    db.execute("create sequence public.numbers")
    db.execute("create table public.shop (id bigint default nextval('numbers'), at timestamptz)")
    rows = db.execute("""
        with sold as (insert into public.shop (at) select now() from generate_series(1, 3) returning *)
        insert into tide_outbox.orders (key, payload) select s.id::text, to_jsonb(s) from sold s
        returning id""").fetchall()
    assert rows == [(1,), (2,), (3,)]
    db.execute("insert into tide_outbox.orders (payload) values (to_jsonb(nextval('public.numbers')))")
    assert db.execute("select payload from tide.message order by id desc limit 1").fetchone() == (4,)


def test_a_role_that_may_publish_may_do_nothing_else_with_a_view(db, login, as_role):
    _, url = login("grant_publisher")
    shop = as_role(url)
    assert insert(shop) == 1
    for statement in (
        "insert into tide_outbox.orders (id, payload) values (7, '1')",
        "insert into tide_outbox.orders (created_at, payload) values (now(), '1')",
        "insert into tide_outbox.orders (outbox_id, payload) values (2, '1')",
        "insert into tide_outbox.orders (payload) values ('1') on conflict (id) do update set payload = '2'",
        "insert into tide_outbox.orders (payload) values ('1') returning payload",
        "select payload from tide_outbox.orders",
        "update tide_outbox.orders set payload = '2'",
        "delete from tide_outbox.orders",
        "select setval('tide.message_1_ids', 1)",
        "select setval('tide.message_1_bell', 1)",
        "select nextval('tide.message_1_bell')",
        "select * from tide.message_1",
        "insert into tide.message (outbox_id, id) values (1, 9)",
        "create table tide_outbox.mine ()",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            shop.execute(statement)
    assert db.execute("select id, payload from tide.message").fetchall() == [(1, {"a": 1})]


@pytest.mark.parametrize("kind", KINDS)
def test_only_publishers_have_a_right_to_views_whenever_these_were_made(db, login, as_role, kind):
    _, url = login(f"grant_{kind}")
    make_outbox(db, "later")
    for outbox in ("orders", "later"):
        if kind == "publisher":
            assert insert(as_role(url), outbox=outbox) == 1
        else:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                insert(as_role(url), outbox=outbox)


def test_the_right_to_one_outbox_is_the_right_to_its_view(db, login, as_role):
    make_outbox(db, "bills")
    name, url = login()
    everywhere, everywhere_url = login("grant_publisher")
    shop, other = as_role(url), as_role(everywhere_url)
    for role in (name, everywhere):
        db.execute("select tide.outbox_grant_publish('orders', %s)", [role])
    assert [insert(shop), insert(shop), insert(other), insert(other, outbox="bills")] == [1, 2, 3, 1]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        insert(shop, outbox="bills")
    for role in (name, everywhere):
        db.execute("select tide.outbox_revoke_publish('orders', %s)", [role])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        insert(shop)
    assert insert(other) == 4


def test_a_guarded_outbox_asks_whatever_rights_a_role_has_to_its_view(db, login, as_role):
    name, url = login("grant_publisher")
    one, _ = login()
    shop = as_role(url)
    insert(shop)
    db.execute("select tide.outbox_grant_publish('orders', %s)", [one])
    insert(shop)
    db.execute(sql.SQL("revoke execute on function tide.publish_anywhere() from {}").format(sql.Identifier(name)))
    with refused("42501", name, '"orders"', hint="tide.outbox_grant_publish"):
        insert(shop)


def test_a_disabled_outbox_refuses_at_once_and_not_before(database, db):
    with database.connect() as other, other.transaction(force_rollback=True):
        db.execute("begin")
        insert(db)
        other.execute("select tide.outbox_disable('orders')")
        insert(db)
        db.execute("commit")
        assert insert(db) == 3, "it is not committed"
    assert insert(db) == 4, "it was rolled back"
    db.execute("update tide.outbox set enabled = false")
    with refused("55000", "is disabled"):
        insert(db)
    db.execute("select tide.outbox_enable('orders')")
    insert(db)


@pytest.mark.parametrize(
    ("columns", "code", "text"),
    [
        ({"payload": f'"{"x" * 200}"'}, "54000", "the message for outbox \"orders\" has 204 bytes, its limit is 100"),
        ({"payload": "1e200"}, "54000", "has 203 bytes"),
        ({"payload": "1", "key": "k" * 100}, "54000", "has 103 bytes"),
        ({"payload": "1", "headers": '{"h": "' + "x" * 100 + '"}'}, "54000", "bytes, its limit is 100"),
        ({"payload": "1", "headers": "[]"}, "22023", "headers must be a JSON object, not array"),
        ({"payload": None}, "23502", "the payload of a message for outbox \"orders\" must not be null"),
        ({"payload": "1", "headers": None}, "23502", "the headers of a message for outbox \"orders\" must not be null"),
    ],
)  # fmt: skip
def test_limits_are_those_of_a_call(db, columns, code, text):
    db.execute("update tide.outbox set max_payload_bytes = 100")
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    into = sql.SQL("insert into tide_outbox.orders ({}) values ({})").format(
        names, sql.SQL(", ").join([sql.SQL("%s")] * len(columns))
    )
    with refused(code, text):
        db.execute(into, list(columns.values()))
    assert db.execute("select count(*) from tide.message").fetchone() == (0,)


def test_a_limit_can_be_changed_and_hides_nothing_that_is_stored(db):
    large = f'"{"x" * 2_000_000}"'
    with refused("54000"):
        insert(db, large)
    db.execute("update tide.outbox set max_payload_bytes = 100000000")
    insert(db, large)
    insert(db, f'"{"x" * 20_000_000}"')
    db.execute("update tide.outbox set max_payload_bytes = 100")
    assert db.execute("select id from tide_outbox.orders order by id").fetchall() == [(2,), (3,)]


def test_views_follow_the_names_of_outboxes(db, login, as_role):
    _, url = login("grant_publisher")
    shop = as_role(url)
    make_outbox(db, "a.b-c")
    make_outbox(db, "n" * 63)
    make_outbox(db, "n" * 64)
    assert views(db) == ["a.b-c", "n" * 63, "orders"]
    db.execute("update tide.outbox set name = 'sales' where name = 'orders'")
    assert views(db) == ["a.b-c", "n" * 63, "sales"]
    assert insert(shop, outbox="sales") == 1
    db.execute("update tide.outbox set name = repeat('x', 64) where name = 'sales'")
    assert views(db) == ["a.b-c", "n" * 63]
    db.execute("update tide.outbox set name = 'orders' where name like 'xx%%'")
    assert insert(shop) == 2
    for name in ("orders", "a.b-c", "n" * 63, "n" * 64):
        db.execute("select tide.outbox_drop(%s)", [name])
    assert views(db) == []
    assert db.execute("select count(*) from pg_class where relname ~ '^message_[0-9]+_(ids|bell)'").fetchone() == (0,)


def test_a_publisher_by_a_view_is_open_until_it_ends(database, db):
    with database.connect() as other:
        other.execute("begin")
        insert(other)
        assert insert(db) == 2
        assert horizon(db) == (0, 1)
        other.execute("savepoint s")
        insert(other)
        other.execute("rollback to s")
        assert horizon(db) == (0, 1)
        other.execute("commit")
    assert horizon(db) == (3, 0)


def test_thousands_of_rows_take_one_lock_also_in_many_statements(database, db):
    with database.connect() as other:
        other.execute("begin")
        other.execute("insert into tide_outbox.orders (payload) select to_jsonb(n) from generate_series(1, 12000) n")
        insert(other)
        publish(other)
        assert horizon(db) == (0, 1)
        assert db.execute("select count(*) from tide.mark").fetchone() == (1,)


@pytest.mark.parametrize("forged", ["{next} 0", "{next} 3", "{next} 2000000000", "{next} x", "left over"])
def test_no_setting_hides_a_publisher(database, db, forged):
    """It may keep that session from publishing."""
    for _ in range(5):
        insert(db)
    with database.connect() as other:
        xid = int(other.execute("select pg_current_xact_id()::text").fetchone()[0])
        other.execute("select set_config('tide.inflight_1', %s, false)", [forged.format(next=xid + 1)])
        other.execute("begin")
        try:
            insert(other)
        except psycopg.errors.InvalidTextRepresentation:
            assert forged.endswith("x")
        else:
            assert horizon(db)[0] <= 5
            assert horizon(db)[1] == 1


def test_a_transaction_inserts_into_a_partition_that_was_made_after_it_began(database, db):
    make_outbox(db, "small", partition_size=1000)
    with database.connect() as other:
        other.execute("begin")
        insert(other, outbox="small")
        db.execute("insert into tide_outbox.small (payload) select '1' from generate_series(1, 1400)")
        assert db.execute("select tide.outbox_extend('small')").fetchone() == (1,)
        db.execute("insert into tide_outbox.small (payload) select '1' from generate_series(1, 800)")
        assert insert(other, outbox="small") == 2202
        other.execute("commit")
    assert db.execute("select count(*) from tide.message_2_2000").fetchone() == (203,)


def test_views_that_a_dump_did_not_hold_are_made_again(db, login, as_role):
    _, url = login("grant_publisher")
    db.execute("drop view tide_outbox.orders")
    db.execute("select tide.apply_permissions()")
    assert insert(as_role(url)) == 1


def test_the_bell_is_rung_while_a_group_sleeps_and_not_else(database, db):
    make_pipeline(database)
    with database.connect() as listener, relay_session(database.url) as session:
        listen(listener)
        drain = begin(session)
        for isolation in ("read committed", "repeatable read"):
            drain.execute("bell_disarm")
            db.execute(f"begin isolation level {isolation}")
            db.execute("select 1 from tide.outbox")  # a snapshot
            drain.execute("bell_arm")
            insert(db)
            insert(db)
            db.execute("commit")
            drain.execute("bell_disarm")
            insert(db)
            db.execute("notify tide_outbox_notify, 'end'")
            assert [n.payload for n in listener.notifies(timeout=10, stop_after=2)] == ["orders", "end"]
