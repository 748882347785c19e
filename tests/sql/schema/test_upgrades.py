"""A database of any release, upgraded, is as a fresh one, and keeps what is in it; no one is kept waiting."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

import relay.database.migrate
from relay.database.migrate import Applied, check, migrate, require_compatible, require_current, script
from relay.errors import MigrationError, NotConnected
from relay.sql import Migration, migrations
from tests.sql.schema.catalog import common, dump
from tests.sql.security.logins import logins
from tests.sql.support import publish, publish_many
from tests.waiting import wait_until

pytestmark = pytest.mark.each_postgres

RELEASES = sorted((Path(__file__).parent / "releases").glob("*.sql"))
TODAY = script()
EARLIER = """
    create or replace function tide.outbox_set_enabled(outbox text, enabled boolean) returns void language sql as '';
    drop function tide.relay_skip_epochs(bigint);
    drop trigger keep_history on tide.pipeline;
    update tide.function_file set checksum = 'earlier' where name in ('outboxes', 'restore', 'pipeline_history');
    update tide.function_file set version = '0.0.9';
"""
"""What makes a schema of today look older: a function that was another, one that was not there, and a trigger."""

LATER = Migration(
    2, "later", "alter table tide.outbox add column later int; comment on column tide.outbox.later is 'x';"
)
"""A migration of a later version. It needs a lock on a table that publishers read."""


@pytest.fixture
def later(monkeypatch):
    """This program knows one migration more."""
    known = (*migrations(), LATER)
    monkeypatch.setattr(relay.database.migrate, "migrations", lambda: known)


def load(database, release):
    """The schema as a release made it; without one, as an imaginary earlier version of today's program made it."""
    with database.connect() as connection:
        connection.execute(release.read_text() if release else TODAY)
        if not release:
            connection.execute(EARLIER)


def fill(database):
    """What people have in a database."""
    with database.connect() as db:
        db.execute("select tide.outbox_create('orders', partition_size => 1000)")
        publish_many(db, 1500)
        db.execute("""select tide.relay_set_outbox('p', 'orders', '{"sink_type": "memory", "url": "${env:SECRET}"}')""")
        db.execute("update tide.consumer_group set offset_id = 700")
        db.execute("""insert into tide.dead_letter
                      (pipeline, outbox, message_id, headers, payload, published_at, code, reason)
                      values ('p', 'orders', 5, '{"a": 1}', '"kept"', now(), 'rejected', 'why')""")
        db.execute(
            "select tide.relay_set_outbox('off', 'orders', '{\"sink_type\": \"memory\"}'), tide.relay_disable('off')"
        )
        db.execute("select tide.setting_set('inbox_dlq_alert_max_per_refresh', '7')")
        db.execute("create schema app; select tide.inbox_create('letters', 'app')")
        db.execute("select tide.inbox_write('letters', '{a,b}', null, null, null, null, '{1,2}', null, null)")


def contents(db):
    """What of it must not change."""
    queries = {
        "message": "select id, key, headers, payload, created_at, size from tide.message order by id",
        "group": "select group_id, outbox_id, name, offset_id from tide.consumer_group order by group_id",
        "pipeline": "select name, enabled, config, group_id, revision, created_at from tide.pipeline order by name",
        "dead": "select dead_letter_id, pipeline, message_id, payload, headers, failed_at from tide.dead_letter",
        "drain": "select pipeline, epoch, number, delivered from tide.drain order by pipeline",
        "inbox": "select event_id, payload, received_at, processed_at from app.letters order by 1",
        "setting": "select name, value from tide.setting where value <> default_value order by name",
    }
    return {name: db.execute(query).fetchall() for name, query in queries.items()}


@pytest.fixture
def old(pg):
    made = pg.create_database(migrated=False)
    yield made
    pg.drop_database(made)


@pytest.mark.parametrize("release", [*RELEASES, None], ids=lambda release: release.stem if release else "earlier")
def test_a_database_of_a_release_becomes_as_a_fresh_one(old, empty_database, later, release):
    load(old, release)
    fill(old)
    with old.connect() as db:
        before = contents(db)
        applied = migrate(old.url)
        assert (applied.migrations[-1], applied.functions) == (LATER, True)
        assert contents(db) == before
        assert publish(db) == 1501
        db.execute("select tide.outbox_create('new', partition_size => 1000)")
        publish_many(db, 3, "new")
        db.execute("select tide.relay_enable('off'), tide.relay_delete('p'), tide.inbox_drop('letters')")
    migrate(empty_database.url)
    assert set(common(old)) ^ set(common(empty_database)) == set()
    assert dump(old) == dump(empty_database)


def test_a_migration_lets_publishers_go_on_while_a_long_transaction_is_in_its_way(old, later):
    load(old, None)
    fill(old)
    published, slowest, stop = [0, 0], [0.0, 0.0], threading.Event()

    def keep_publishing(number):
        with old.connect() as session:
            while not stop.is_set():
                began = time.monotonic()
                publish(session)
                slowest[number] = max(slowest[number], time.monotonic() - began)
                published[number] += 1

    def go_on():
        before = sum(published)
        wait_until(lambda: sum(published) > before + 20, 20, "publishers go on")

    def waiting(db):
        row = db.execute("""select count(*) from pg_locks where locktype = 'relation' and not granted
                             and mode not in ('AccessShareLock', 'RowExclusiveLock')""").fetchone()
        return row[0] > 0

    with ThreadPoolExecutor(3) as pool, old.connect() as watch, old.connect(autocommit=False) as long:
        publish(long)
        publishers = [pool.submit(keep_publishing, number) for number in range(2)]
        try:
            migration = pool.submit(migrate, old.url, timeout_seconds=60)
            for _ in range(2):  # tries
                wait_until(lambda: waiting(watch), 20, "the migration waits for the long transaction")
                go_on()
            assert not migration.done()
            long.commit()
            assert migration.result(60).functions
            go_on()
        finally:
            long.rollback()
            stop.set()
        for publisher in publishers:
            publisher.result(20)
        # Twice the lock's limit would be enough on a machine that has nothing else to do.
        assert max(slowest) < 10 * relay.database.migrate.LOCK_SECONDS
        assert watch.execute("select count(*) from tide.message").fetchone() == (1501 + sum(published),)


def test_a_migration_that_is_in_the_way_for_too_long_gives_up_and_changes_nothing(old, later):
    load(old, None)
    fill(old)
    before = common(old)
    with old.connect(autocommit=False) as long:
        publish(long)
        with pytest.raises(NotConnected, match=r"lock timeout.*nothing was changed") as caught:
            migrate(old.url, timeout_seconds=0.8)
        assert caught.value.code == "locked"
    assert common(old) == before
    assert migrate(old.url).names == ("0002_later",)


def test_what_is_current_needs_no_right_to_create(database):
    with logins(database) as login:
        _, url = login("grant_reader")
        assert migrate(url) == Applied()


@pytest.mark.parametrize("compatible", [True, False])
def test_a_program_works_on_a_newer_schema_only_if_that_is_compatible(database, compatible):
    with database.connect() as db:
        db.execute("insert into tide.migration (version, name, compatible) values (9998, 'later', true)")
        db.execute("insert into tide.migration (version, name, compatible) values (9999, 'last', %s)", [compatible])
        state = check(db)
        assert (state.current, state.workable, state.unknown) == (False, compatible, (9998, 9999))
        if compatible:
            require_current(db)
            require_compatible(db)
            assert migrate(database.url) == Applied()
            return
        for refuse in (require_current, require_compatible):
            with pytest.raises(
                MigrationError, match=r"it has migration 9999, with which .* cannot work; upgrade tide-relay"
            ):
                refuse(db)
        with pytest.raises(MigrationError, match="9999"):
            migrate(database.url)


def test_a_role_that_may_not_look_is_not_refused(database):
    with logins(database) as login, database.connect() as db:
        db.execute("insert into tide.migration (version, name) values (9999, 'last')")
        for grants in ((), ("grant_publisher",)):
            with psycopg.connect(login(*grants)[1]) as session:
                require_compatible(session)


def test_the_watch_looks_again_only_after_its_interval(database):
    with database.connect() as db:
        patient, eager = relay.database.migrate.Watch(3600), relay.database.migrate.Watch(0)
        patient.check(db)
        eager.check(db)
        db.execute("insert into tide.migration (version, name) values (9999, 'last')")
        patient.check(db)
        with pytest.raises(MigrationError):
            eager.check(db)
