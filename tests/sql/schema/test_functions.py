"""The functions are applied again when one of their files changes: all at once, while publishers go on."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest

import relay.database.migrate
from relay import __version__
from relay.database.migrate import Applied, check, migrate, require_current
from relay.errors import ConfigError, MigrationError
from relay.sql import FunctionFile, Migration, functions, migrations
from tests.sql.jobs.jobs import Worker, enqueue
from tests.sql.schema.catalog import catalog, common
from tests.sql.security.logins import logins
from tests.sql.support import make_outbox, publish, refused
from tests.waiting import wait_until

SETTINGS = "\ncreate or replace function tide.later() returns int language sql return 2;\n"
PUBLISH_RIGHTS = "\n-- A comment that was not there before.\n"

# The state of each function and trigger as PostgreSQL stores it: xmin is another after each replacement.
STORED = """
    select 'function', p.oid::regprocedure::text, p.xmin::text from pg_proc p
     where p.pronamespace in ('tide'::regnamespace, 'pgtrickle'::regnamespace)
    union all
    select 'trigger', t.tgrelid::regclass || '.' || t.tgname, t.xmin::text from pg_trigger t
      join pg_class c on c.oid = t.tgrelid where c.relnamespace = 'tide'::regnamespace and not t.tgisinternal
"""


@pytest.fixture
def db(database):
    with database.connect() as connection:
        make_outbox(connection)
        yield connection


@pytest.fixture
def changed(monkeypatch):
    """This program has a new function in `settings`, and a change in `publish_rights`, which has a trigger."""
    added = {"settings": SETTINGS, "publish_rights": PUBLISH_RIGHTS}
    files = tuple(replace(file, sql=file.sql + added.get(file.name, "")) for file in functions())
    monkeypatch.setattr(relay.database.migrate, "functions", lambda: files)
    return files


def stored(db):
    return {(kind, name): xmin for kind, name, xmin in db.execute(STORED)}


def test_what_is_unchanged_is_not_executed(database, db):
    before = stored(db)
    assert migrate(database.url) == Applied()
    assert stored(db) == before


def test_a_change_of_one_file_applies_all_functions_and_the_triggers_of_that_file(database, db, changed):
    assert check(db).lacks == (f"the functions of {__version__}",)
    with pytest.raises(MigrationError, match=f"lacks the functions of {re.escape(__version__)}: run relay migrate"):
        require_current(db)
    before = stored(db)
    assert migrate(database.url) == Applied(functions=True)
    after = stored(db)
    replaced = {key for key in before if after[key] != before[key]}
    assert {name for kind, name in before if kind == "function"} == {
        name for kind, name in replaced if kind == "function"
    }
    assert [name for kind, name in replaced if kind == "trigger"] == ["tide.outbox.new_outbox_guarded"]
    assert after.keys() - before.keys() == {("function", "tide.later()")}
    require_current(db)
    assert migrate(database.url) == Applied()
    assert stored(db) == after


def test_publishers_go_on_while_functions_are_applied_again_and_again(database, db, changed, monkeypatch):
    stop = threading.Event()
    ids: list[list[int]] = [[], [], [], []]

    def work(mine):
        with database.connect() as connection:
            connection.execute(f"set lock_timeout = '{relay.database.migrate.LOCK_SECONDS}s'")
            while not stop.is_set():
                mine.append(publish(connection))

    def go_on():
        before = [len(mine) for mine in ids]
        wait_until(lambda: all(len(mine) > n for mine, n in zip(ids, before, strict=True)), what="each publishes")

    with ThreadPoolExecutor(4) as pool, database.connect(autocommit=False) as idle:
        publish(idle)
        working = [pool.submit(work, mine) for mine in ids]
        try:
            go_on()
            for number in range(3):
                files = (*changed[:-1], replace(changed[-1], sql=f"{changed[-1].sql}\n-- {number}\n"))
                monkeypatch.setattr(relay.database.migrate, "functions", lambda files=files: files)
                assert migrate(database.url, timeout_seconds=20).functions
                go_on()
        finally:
            stop.set()
        for publisher in working:
            publisher.result()
        idle.commit()
    published = [row[0] for row in db.execute("select id from tide.message order by id")]
    assert published == sorted([1, *(number for mine in ids for number in mine)])


def test_jobs_are_claimed_and_ended_while_functions_are_applied_again_and_again(database, db, changed, monkeypatch):
    db.execute("select tide.job_queue_create('mail')")
    stop = threading.Event()
    ended: list[list[int]] = [[], []]

    def work(mine):
        with database.connect() as connection:
            worker = Worker(connection)
            while not stop.is_set():
                enqueue(connection)
                mine += worker.run()

    def go_on():
        before = [len(mine) for mine in ended]
        wait_until(lambda: all(len(mine) > n for mine, n in zip(ended, before, strict=True)), what="each ends jobs")

    with ThreadPoolExecutor(2) as pool:
        working = [pool.submit(work, mine) for mine in ended]
        try:
            go_on()
            for number in range(5):
                files = (*changed[:-1], replace(changed[-1], sql=f"{changed[-1].sql}\n-- {number}\n"))
                monkeypatch.setattr(relay.database.migrate, "functions", lambda files=files: files)
                assert migrate(database.url, timeout_seconds=20).functions
                go_on()
        finally:
            stop.set()
        for each in working:
            each.result()


def test_the_copies_of_a_queue_follow_their_originals(database, db, changed):
    db.execute("select tide.job_queue_create('mail')")
    copies = "select proname, proargtypes::text, prosrc from pg_proc where proname ~ '_in_[0-9]+$' order by 1"
    before = db.execute(copies).fetchall()
    assert "job_claim_in_2" in [name for name, *_ in before]
    # As of earlier originals: of another text, result and arguments, and one more.
    db.execute("""
        create or replace function tide.job_claim_in_2(queue int, worker bigint, want int)
        returns setof tide.job_claimed language plpgsql as 'begin end';
        drop function tide.job_stored_in_2;
        create function tide.job_stored_in_2(queue int, job_id bigint) returns int language sql return 1;
        create function tide.job_finish_in_2(queue int) returns int language sql return 1;
    """)
    assert migrate(database.url).functions
    assert db.execute(copies).fetchall() == before
    assert Worker(db).claim() == []


def test_the_copies_of_an_inbox_follow_their_originals(database, db, changed):
    db.execute("select tide.inbox_create('letters')")
    copies = "select proname, prosrc from pg_proc where proname ~ '^inbox_(write|move)_[0-9_]+$'"
    before = db.execute(copies).fetchall()
    assert [name for name, _ in before] == ["inbox_write_1"]
    # As of earlier originals; the second is made again by the first move.
    db.execute("""
        create or replace function tide.inbox_write_1(text[], text[], text[], text[], bigint[], text[], text[], text[])
        returns bigint language plpgsql as 'begin return 0; end';
        create function tide.inbox_move_3_1(int) returns int language sql return 1;
    """)
    assert migrate(database.url).functions
    assert db.execute(copies).fetchall() == before
    written = "select tide.inbox_write('letters', '{a,b}', null, null, null, null, '{1,2}', null, null)"
    assert db.execute(written).fetchone() == (2,)
    db.execute("drop function tide.inbox_write_1")
    assert db.execute(written.replace("a,b", "b,c")).fetchone() == (1,), "a database that lacks one writes too"
    db.execute("select tide.inbox_create('parcels')")
    assert [name for name, _ in db.execute(copies)] == ["inbox_write_2"]
    db.execute("create function tide.inbox_move_3_2(int) returns int language sql return 1")
    db.execute("select tide.inbox_drop('parcels')")
    assert db.execute(copies).fetchall() == []


def test_functions_of_a_later_version_are_left_alone(database, db, changed, monkeypatch):
    migrate(database.url)
    later = catalog(database)
    monkeypatch.setattr(relay.database.migrate, "functions", functions)
    for version in ("0.0.9", f"{__version__}rc1"):
        monkeypatch.setattr(relay.database.migrate, "__version__", version)
        state = check(db)
        assert (state.functions, state.workable, state.current, state.lacks) == ("ahead", True, False, ())
        require_current(db)
        assert migrate(database.url) == Applied()
    assert catalog(database) == later
    monkeypatch.setattr(relay.database.migrate, "__version__", "99.0.10")
    assert migrate(database.url) == Applied(functions=True)


def test_functions_of_a_database_that_is_ahead_by_a_migration_are_left_alone(database, db, changed):
    db.execute("insert into tide.migration (version, name, compatible) values (9999, 'later', true)")
    assert check(db).functions == "ahead"
    assert migrate(database.url) == Applied()


def test_rights_stay_and_new_functions_are_for_no_one_until_it_is_granted(database, db, changed):
    with logins(database) as login:
        granted, by_hand = login("grant_publisher")[1], login()
        db.execute(f"grant usage on schema tide to {by_hand[0]}")
        db.execute(f"grant execute on function tide.outbox_publish(text, jsonb, jsonb, text) to {by_hand[0]}")
        migrate(database.url)
        for url in (granted, by_hand[1]):
            with psycopg.connect(url, autocommit=True) as session:
                assert publish(session)
                with refused("42501"):
                    session.execute("select tide.later()")


def test_the_roles_of_relay_migrate_get_what_is_new_where_they_have_rights(database, db, changed, monkeypatch):
    with logins(database) as login:
        for kind in ("reader", "operator"):
            login(name=f"tide_{kind}")
        db.execute("select tide.grant_reader('tide_reader')")
        db.execute("insert into tide.permission (kind, object_type, object) values ('reader', 'function', 'later')")
        migrate(database.url)
        may = "select has_function_privilege(%s, 'tide.later()', 'execute')"
        assert db.execute(may, ["tide_reader"]).fetchone() == (True,)
        assert db.execute(may, ["tide_operator"]).fetchone() == (False,), "no one has given it rights here"
        table = Migration(2, "later", """
            create table tide.noted ();
            insert into tide.permission (kind, object_type, object, privileges)
            values ('reader', 'table', 'noted', 'select');
        """)  # fmt: skip
        known = (*migrations(), table)
        monkeypatch.setattr(relay.database.migrate, "migrations", lambda: known)
        assert migrate(database.url) == Applied((table,), functions=False)
        assert db.execute("select has_table_privilege('tide_reader', 'tide.noted', 'select')").fetchone() == (True,)


def test_a_function_file_that_fails_changes_nothing(database, db, changed, monkeypatch):
    before = common(database)
    broken = (
        *changed,
        FunctionFile("broken", "create or replace function tide.broken() returns int as 'no' language sql;"),
    )
    monkeypatch.setattr(relay.database.migrate, "functions", lambda: broken)
    with pytest.raises(ConfigError, match="syntax error"):
        migrate(database.url)
    assert common(database) == before
