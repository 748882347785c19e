"""What others put on the table of an inbox never runs with the rights of the owner of the schema tide.

An application owns the table, or its schema, and lets the owner of tide act for it. The traps tell as whom they run.
"""

import psycopg
import pytest

from tests.sql.inbox.inboxes import call
from tests.sql.security.inbox_traps import BUILT_IN_TRAPS, HARMLESS, MOODY, SINCE, TABLE, TRAP, TRAPS
from tests.sql.security.logins import logins
from tests.sql.support import refused

pytestmark = pytest.mark.each_postgres

CALLS = {
    "writing": "tide.inbox_write('events', array['good'], array['t'], array['s'], array['a'], array[1], array['1'],"
    " array['{}'], array['x'])",
    "receiving": "tide.inbox_receive('p', 0, 0, 30, 1, 0, '{}', '{}', 'events', array['good'], array['t'], array['s'],"
    " array['a'], array[1], array['1'], array['{}'], array['x'])",
    "moving": "tide.inbox_move('p', 0, 0, 30, null, 1, 'events', 0, 1, 10, 1000000)",
    "looking": "tide.inbox_look('events', array['good'], array['1'])",
    "removing": "tide.inbox_retain('events')",
    "counting": "tide.inbox_status('events')",
    "health": "tide.inbox_health('events')",
    "gaps": "tide.inbox_ordering_gaps('events')",
    "listing": "tide.inbox_messages('events', 'pending')",
    "replaying": "tide.inbox_replay('events', array['old'])",
    "replaying the dead": "tide.inbox_replay_dead('events')",
}


@pytest.fixture
def db(database):
    with database.connect() as connection:
        connection.execute("select tide.outbox_create('orders')")
        connection.execute("""select tide.relay_set_outbox('p', 'orders', '{"sink_type": "memory"}')""")
        connection.execute("select tide.outbox_publish('orders', '1')")
        yield connection


@pytest.fixture
def app(database, db):
    """A role that owns the schema app. Tide's owner may act for it, and not the other way."""
    with logins(database) as make:
        _name, url = make(name="app")
        with database.admin() as admin:
            admin.execute("create schema app authorization app; grant app to tide_owner")
        db.execute("select tide.grant_publisher('app')")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(TRAP)
            yield connection
        with database.admin() as admin:
            admin.execute("drop schema app cascade")


def track(db):
    call(db, "tide.enable_inbox_tracking('app.events', processed_retention_hours => 1)")
    call(db, "tide.enable_inbox_ordering('events')")


def sprung(app):
    """The roles that the traps ran as. What their owner did does not count."""
    return {who for (who,) in app.execute("select who from app.sprung where who <> 'app'")}


def call_all(db, code, said):
    for expression in CALLS.values():
        with refused(code, said):
            db.execute(f"select {expression}")
    # One inbox that cannot be read does not hide the others.
    assert db.execute("select name, pending from tide.inbox_status()").fetchall() == [("events", None), ("other", 0)]


@pytest.mark.parametrize("trap", TRAPS)
def test_what_is_put_on_a_tracked_table_later_is_found_and_not_run(db, app, trap):
    laid, code = TRAPS[trap]
    app.execute(TABLE)
    track(db)
    call(db, "tide.inbox_create('other')")
    app.execute("insert into app.events (event_id, processed_at) values ('old', now() - interval '1 day')")
    app.execute(laid)
    app.execute("delete from app.sprung")
    call_all(db, "42501", code)
    assert sprung(app) == set()
    assert app.execute("select count(*) from app.events").fetchone() == (1,)


@pytest.mark.parametrize("trap", TRAPS)
def test_a_table_that_has_it_already_does_not_become_an_inbox(db, app, trap):
    laid, code = TRAPS[trap]
    app.execute(TABLE)
    app.execute("insert into app.events values ('old')")
    app.execute(laid)
    with refused("42501", code):
        call(db, "tide.enable_inbox_tracking('app.events')")
    assert sprung(app) == set()
    assert db.execute("select count(*) from tide.inbox").fetchone() == (0,)


def test_functions_of_postgresql_that_run_what_they_are_given_are_found_and_not_run(pg, db, app):
    """One table after the other, as each has the same name."""
    call(db, "tide.inbox_create('other')")
    for trap, (laid, code) in BUILT_IN_TRAPS.items():
        if pg.version < SINCE.get(trap, 0):
            continue
        app.execute(TABLE)
        track(db)
        app.execute("insert into app.events (event_id, processed_at) values ('old', now() - interval '1 day')")
        app.execute(laid)
        app.execute("delete from app.sprung")
        call_all(db, "42501", code)
        assert sprung(app) == set(), trap
        db.execute("select tide.disable_inbox_tracking('events'); drop table app.events cascade")


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_harmless_is_allowed(db, app, when):
    app.execute(TABLE)
    if when == "before":
        app.execute(HARMLESS)
    track(db)
    if when == "after":
        app.execute(HARMLESS)
    assert call(db, CALLS["writing"]) == 1
    assert call(db, CALLS["looking"]) is not None
    assert db.execute(f"select messages from {CALLS['moving']}").fetchall() == [(1,)]
    assert call(db, "tide.inbox_health('events') ->> 'pending'") == "2"


def test_a_written_id_is_converted_to_the_type_that_the_column_has_now(db, app):
    """The owner of the schema may put a type of its own in the place of the one that the inbox remembers."""
    db.execute("create domain public.code as text")
    app.execute("create table app.events (event_id public.code primary key, mine text)")
    track(db)
    app.execute("drop view app.events_pending, app.events_dlq, app.events_stats, app.next_events")
    app.execute("alter table app.events alter event_id type text")
    db.execute("drop domain public.code")
    for name in ("writing", "looking"):
        with refused("42P16", "no longer of type public.code"):
            call(db, CALLS[name])


def test_what_a_type_of_a_trusted_owner_consists_of_is_looked_at_too(db, app):
    app.execute(TABLE)
    db.execute("create type public.pair as (a int, b app.checked[])")
    app.execute("alter table app.events add p public.pair")
    with refused("42501", "app.checked"):
        call(db, "tide.enable_inbox_tracking('app.events')")


def test_a_type_of_others_is_not_converted(db, app):
    app.execute(MOODY)
    with refused("42501", "type app.mood, which belongs to app"):
        call(db, "tide.enable_inbox_tracking('app.events')")
    app.execute("drop table app.events")
    app.execute(TABLE)
    track(db)
    call(db, "tide.inbox_create('other')")
    app.execute("drop view app.events_pending, app.events_dlq, app.events_stats, app.next_events")
    app.execute("alter table app.events alter aggregate_id type app.mood using null")
    app.execute(
        "insert into app.events (event_id, aggregate_id, event_sequence) values ('a', 'good', 1), ('b', 'good', 3)"
    )
    call_all(db, "42501", "type app.mood")
    assert sprung(app) == set()


def test_what_its_owner_has_given_to_tides_owner_is_trusted(database, db, app):
    app.execute(TABLE)
    track(db)
    app.execute(TRAPS["trigger"][0])
    with refused("42501", "app.fire()", hint="belong to tide_owner"):
        call(db, CALLS["writing"])
    with database.admin() as admin:
        admin.execute("alter function app.fire() owner to tide_owner")
    assert call(db, CALLS["writing"]) == 1


@pytest.mark.parametrize(
    ("instead", "code", "said"),
    [
        ("create view app.events as select 'a' as event_id from app.trap()", "42809", "no ordinary table any more"),
        ("create table app.events (event_id app.checked, payload jsonb)", "42501", "app.checked"),
        (None, "42P16", "is gone"),
    ],
    ids=["view", "table", "nothing"],
)
def test_the_owner_of_a_schema_may_replace_an_inbox_and_wins_nothing(database, db, app, instead, code, said):
    app.execute("grant all on schema app to tide_owner")
    call(db, "tide.inbox_create('events', schema => 'app')")
    call(db, "tide.enable_inbox_ordering('events')")
    call(db, "tide.inbox_create('other')")
    call(db, CALLS["writing"])
    app.execute("drop table app.events cascade")
    if instead:
        app.execute(instead)
    call_all(db, code, said)
    assert sprung(app) == set()
    if not instead:
        call(db, "tide.inbox_drop('events')")
        assert db.execute("select name from tide.inbox").fetchall() == [("other",)]


def test_the_right_to_make_triggers_on_an_inbox_is_no_right_to_more(db, app):
    call(db, "tide.inbox_create('events')")
    call(db, "tide.enable_inbox_ordering('events')")
    call(db, "tide.inbox_create('other')")
    db.execute("grant usage on schema tide to app; grant all on tide.events to app")
    app.execute("create trigger t before insert on tide.events for each row execute function app.fire()")
    call_all(db, "42501", "app.fire()")
    app.execute("create table app.child (event_id text references tide.events on delete cascade)")
    db.execute("drop trigger t on tide.events")
    call_all(db, "42501", "app.child, which belongs to app")
    assert sprung(app) == set()


def test_what_was_looked_at_cannot_change_before_it_is_used(database, db, app):
    """A trigger that is made meanwhile waits until the transaction that looked is over."""
    app.execute(TABLE)
    track(db)
    with database.connect(autocommit=False) as writer:
        app.execute("set lock_timeout = '50ms'")
        for lock_mode, trap in (("row exclusive", "trigger"), ("access share", "policy")):
            writer.execute("select tide.inbox_guard(i, %s) from tide.inbox i", [lock_mode])
            with pytest.raises(psycopg.errors.LockNotAvailable):
                app.execute(TRAPS[trap][0])
            writer.rollback()


def test_who_configures_makes_no_inbox_of_anothers_table(database, db, app):
    """Else it could be read by whom tide.inbox_grant lets."""
    app.execute(TABLE)
    db.execute("create table public.owned (event_id text primary key)")
    with logins(database) as make:
        _, url = make("grant_admin")
        with psycopg.connect(url, autocommit=True) as admin:
            for table in ("app.events", "public.owned"):
                with refused("42501", "belongs to", hint="Only the owner of a table"):
                    call(admin, "tide.enable_inbox_tracking(%s)", str(call(db, "%s::regclass::oid", table)))
        _name, url = make("grant_admin", member_of=("app",))
        with psycopg.connect(url, autocommit=True) as admin:
            assert call(admin, "tide.enable_inbox_tracking('app.events')") == "events"
