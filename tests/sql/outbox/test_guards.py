"""Rights to single outboxes and inboxes: who has one has no other, and who had all has them still."""

import psycopg
import pytest
from psycopg import sql

from tests.sql.security.logins import logins
from tests.sql.support import make_outbox, publish, publish_many, refused

pytestmark = pytest.mark.each_postgres

NAMES = ['Odd; name "x"', "a b", "Grüße_漢", "r" * 63]


@pytest.fixture
def db(database):
    with database.connect() as connection:
        make_outbox(connection, "orders")
        make_outbox(connection, "bills")
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


def test_a_role_with_a_right_to_one_outbox_publishes_there_and_nowhere_else(db, login, as_role):
    name, url = login()
    db.execute("select tide.outbox_grant_publish('orders', %s)", [name])
    shop = as_role(url)
    assert publish(shop) == 1
    assert publish_many(shop, 2) == [2, 3]
    with refused("42501", name, '"bills"', hint=f"tide.outbox_grant_publish('bills', '{name}')"):
        publish(shop, "bills")
    with refused("42501", '"bills"'):
        publish_many(shop, 2, "bills")
    db.execute("select tide.outbox_revoke_publish('orders', %s)", [name])
    with refused("42501"):
        publish(shop)
    assert db.execute("select count(*) from tide.message").fetchone() == (3,)


def test_nothing_is_published_and_no_mark_is_taken_where_it_is_refused(db, login, as_role):
    name, url = login()
    db.execute("select tide.outbox_grant_publish('orders', %s)", [name])
    shop = as_role(url)
    for call in (lambda: publish(shop, "bills"), lambda: publish_many(shop, 1, "bills")):
        shop.execute("begin")
        with refused("42501"):
            call()
        locks = db.execute("select count(*) from pg_locks where locktype = 'advisory' and objsubid = 2").fetchone()
        assert locks == (0,)
        shop.execute("rollback")


def test_those_who_may_publish_everywhere_still_may(db, login, as_role):
    everywhere, url = login("grant_publisher")
    one, _ = login()
    publish(as_role(url))
    db.execute("select tide.outbox_grant_publish('orders', %s)", [one])
    session = as_role(url)
    assert publish(session, "bills") == 1
    assert publish_many(session, 2, "bills") == [2, 3]
    assert publish(db, "bills") == 4
    assert everywhere != one


def test_an_outbox_that_is_made_later_is_guarded_too(db, login, as_role):
    name, url = login()
    make_outbox(db, "before")
    assert db.execute("select bool_or(guarded) from tide.outbox").fetchone() == (False,)
    db.execute("select tide.outbox_grant_publish('orders', %s)", [name])
    db.execute("select tide.outbox_drop('orders'), tide.outbox_drop('bills'), tide.outbox_drop('before')")
    make_outbox(db, "later")
    with refused("42501", "later"):
        publish(as_role(url), "later")


def test_before_any_such_right_a_publish_asks_for_none(db, login, as_role):
    """A function of the application that runs with its owner's rights publishes for callers who could not."""
    caller, url = login()
    other, _ = login()
    db.execute("create schema app; grant usage on schema app to public")
    db.execute("""create function app.shop() returns bigint language sql security definer
                  return tide.outbox_publish('orders', '1')""")
    assert as_role(url).execute("select app.shop()").fetchone() == (1,)
    db.execute("select tide.outbox_grant_publish('bills', %s)", [other])
    with refused("42501", caller):
        as_role(url).execute("select app.shop()")


def test_a_right_comes_with_membership_and_with_set_role(db, login, as_role):
    group, _ = login()
    db.execute("select tide.outbox_grant_publish('orders', %s)", [group])
    _, member = login(member_of=(group,))
    assert publish(as_role(member)) == 1
    other, other_url = login()
    db.execute("select tide.outbox_grant_publish('bills', %s)", [other])
    with refused("42501"):
        publish(as_role(other_url), "orders")
    session = as_role(member)
    session.execute(sql.SQL("set role {}").format(sql.Identifier(group)))
    assert publish(session) == 2
    with refused("42501", group):
        publish(session, "bills")


def test_a_caller_cannot_pretend_to_be_another(db, login, as_role):
    one, url = login()
    everywhere, _ = login("grant_publisher")
    db.execute("select tide.outbox_grant_publish('orders', %s)", [one])
    session = as_role(url)
    for trick in ("select set_config('role', %s, false)", "select set_config('session_authorization', %s, false)"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute(trick, [everywhere])
    with pytest.raises(psycopg.Error):
        session.execute("select set_config('is_superuser', 'on', false)")
    with refused("42501"):
        publish(session, "bills")


def test_a_right_goes_with_its_role_and_with_its_outbox(db, database, login, as_role):
    name, url = login()
    db.execute("select tide.outbox_grant_publish('orders', %s)", [name])
    with database.admin() as admin:
        admin.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
    db.execute("select tide.outbox_grant_publish('bills', %s)", [name])
    with refused("42501"):
        publish(as_role(url), "orders")
    db.execute("select tide.outbox_drop('bills')")
    make_outbox(db, "bills")
    with refused("42501"):
        publish(as_role(url), "bills")


def test_the_right_to_an_outbox_allows_nothing_else(db, database, login, as_role):
    """But to take its ids, as a publish that is rolled back does; who may read everything may not publish."""
    name, url = login()
    reading, reading_url = login(member_of=("pg_read_all_data", "pg_write_all_data"))
    db.execute(
        "select tide.outbox_grant_publish('orders', %s), tide.outbox_grant_publish('bills', %s)", [name, reading]
    )
    shop = as_role(url)
    assert publish(shop) == 1
    for statement in (
        "select nextval('tide.message_2_ids')",
        "select nextval('tide.message_1_bell')",
        "select setval('tide.message_1_ids', 1)",
        "select * from tide.message_1_ids",
        "select * from tide.message_1",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            shop.execute(statement)
    with refused("42501", reading, '"orders"'):
        publish(as_role(reading_url))
    usable = """select s.seqrelid::regclass::text, p from pg_sequence s, unnest('{usage,select,update}'::text[]) p
                 where has_sequence_privilege(%s, s.seqrelid, p) order by 1"""
    assert db.execute(usable, [name]).fetchall() == [("tide.message_1_bell", "select"), ("tide.message_1_ids", "usage")]


def test_an_outbox_is_dropped_with_its_right_whoever_has_built_on_that(db, login, as_role):
    name, url = login()
    db.execute("select tide.outbox_grant_publish('orders', %s)", [name])
    as_role(url).execute("create temp view mine as select tide.publish_to_1()::text")
    db.execute("select tide.outbox_drop('orders')")
    assert db.execute("select to_regprocedure('tide.publish_to_1()')").fetchone() == (None,)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_roles_are_quoted(db, login, as_role, name):
    _, url = login(name=name)
    db.execute("select tide.outbox_grant_publish('orders', %s)", [name])
    db.execute("select tide.inbox_create('in')")
    db.execute("select tide.inbox_grant('in', %s)", [name])
    session = as_role(url)
    assert publish(session) > 0
    with refused("42501", name.replace('"', '""') if '"' in name else name):
        publish(session, "bills")
    assert session.execute("select * from tide.inbox_claim('in', 'w')").fetchall() == []
    for kind in ("admin", "operator", "reader", "publisher", "consumer", "relay", "api", "inbox_writer"):
        db.execute(f"select tide.grant_{kind}(%s)", [name])


def test_a_role_that_does_not_exist_is_named(db):
    for call in ("outbox_grant_publish('orders', 'no such role')", "grant_admin('no such role')"):
        with refused("42704", 'role "no such role" does not exist', hint="relay migrate --roles"):
            db.execute(f"select tide.{call}")


def test_an_admin_hands_out_rights_to_outboxes_and_has_none_to_publish(db, login, as_role):
    admin, admin_url = login("grant_admin")
    shop, shop_url = login()
    session = as_role(admin_url)
    session.execute("select tide.outbox_create('new')")
    session.execute("select tide.outbox_grant_publish('new', %s)", [shop])
    assert publish(as_role(shop_url), "new") == 1
    with refused("42501"):
        publish(session, "new")
    with refused("42501"):
        session.execute("select tide.grant_publisher(%s)", [admin])


def test_publishers_go_on_while_the_first_right_is_given(db, database, login):
    name, _ = login()
    with database.connect(autocommit=False) as publisher:
        publish(publisher)
        db.execute("set lock_timeout = '2s'")
        db.execute("select tide.outbox_grant_publish('orders', %s)", [name])
        publish(publisher)
    assert db.execute("select bool_and(guarded) from tide.outbox").fetchone() == (True,)


def test_a_role_works_off_the_inbox_that_it_was_given_and_no_other(db, login, as_role):
    name, url = login()
    db.execute("select tide.inbox_create('mine'), tide.inbox_create('other')")
    for inbox in ("mine", "other"):
        db.execute("select tide.inbox_write(%s, '{a,b,c}', null, null, null, null, '{1,2,3}', null, null)", [inbox])
    db.execute("select tide.inbox_grant('mine', %s)", [name])
    worker = as_role(url)
    claimed = worker.execute("select event_id from tide.inbox_claim('mine', 'w', 2)").fetchall()
    assert claimed == [("a",), ("b",)]
    assert worker.execute("select tide.inbox_mark_processed('mine', '{a}', 'w')").fetchone() == (1,)
    assert worker.execute("select tide.inbox_mark_failed('mine', 'b', 'no', 'w')").fetchone() == ("retry",)
    assert worker.execute("update tide.mine set processed_at = now() where event_id = 'c'").rowcount == 1
    assert worker.execute("select event_id from tide.mine_pending").fetchall() == [("b",)]
    worker.execute("select * from tide.mine_dlq, tide.mine_stats")
    for statement in (
        "select * from tide.inbox_claim('other', 'w')",
        "select tide.inbox_mark_processed('other', '{a}')",
        "select * from tide.other",
        "select * from tide.other_pending",
        "delete from tide.mine",
        "insert into tide.mine (event_id) values ('x')",
        "select tide.inbox_write('mine', '{x}', null, null, null, null, '{1}', null, null)",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            worker.execute(statement)
    db.execute("select tide.inbox_revoke('mine', %s)", [name])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        worker.execute("select * from tide.inbox_claim('mine', 'w')")


def test_an_inbox_with_an_order_is_worked_off_by_its_role(db, login, as_role):
    name, url = login()
    db.execute("create schema app")
    db.execute("select tide.inbox_create('ordered', 'app')")
    db.execute("select tide.enable_inbox_ordering('ordered', 'aggregate_id', 'event_sequence')")
    db.execute("select tide.inbox_grant('ordered', %s)", [name])
    db.execute("select tide.inbox_write('ordered', '{a,b}', null, null, '{x,x}', '{2,1}', '{1,2}', null, null)")
    worker = as_role(url)
    assert worker.execute("select event_id from tide.inbox_claim('ordered', 'w')").fetchall() == [("b",)]
    assert worker.execute("select event_id from app.next_ordered").fetchall() is not None


def test_the_table_of_another_owner_is_granted_by_that_owner(db, database, login):
    name, _ = login()
    with database.admin() as admin:
        admin.execute("create table public.theirs (id text primary key, payload jsonb)")
        admin.execute("""insert into tide.inbox (name, table_schema, table_name, event_id_col, tracked)
                         values ('theirs', 'public', 'theirs', 'id', true)""")
    with refused("42501", "belongs to another role", hint=f"grant select, update on public.theirs to {name};"):
        db.execute("select tide.inbox_grant('theirs', %s)", [name])
