"""A database of any earlier state, upgraded, is as a fresh one, and keeps what is in it; nobody is kept waiting."""

import os
import re
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

import relay.database.migrate
from relay.database.migrate import check, migrate, require_compatible, require_current
from relay.errors import MigrationError, NotConnected
from relay.sql import migrations
from tests.sql.logins import logins
from tests.sql.support import publish, publish_many
from tests.sql.test_migrations import CATALOG
from tests.waiting import wait_until

pytestmark = pytest.mark.each_postgres

RELEASED = 2
"""The last migration that was published before migrations said whether they are compatible."""
ONE_OUTBOX = re.compile(r"\bmessage_\d")


def migrate_to(database, version, monkeypatch):
    """As a program would that knows no later migration."""
    with monkeypatch.context() as earlier:
        earlier.setattr(relay.database.migrate, "migrations", lambda: migrations()[:version])
        migrate(database.url)
    if version <= RELEASED:
        with database.connect() as connection:
            connection.execute("alter table tide.migration drop column compatible")


def fill(database, version):
    """What people have in a database of that state."""
    with database.connect() as db:
        db.execute("select tide.outbox_create('orders', partition_size => 1000)")
        publish_many(db, 1500)
        if version >= 2:
            db.execute(
                """select tide.relay_set_outbox('p', 'orders', '{"sink_type": "memory", "url": "${env:SECRET}"}')"""
            )
            db.execute("update tide.consumer_group set offset_id = 700")
            db.execute("""insert into tide.dead_letter
                          (pipeline, outbox, message_id, headers, payload, published_at, code, reason)
                          values ('p', 'orders', 5, '{"a": 1}', '"kept"', now(), 'rejected', 'why')""")
            db.execute(
                "select tide.relay_set_outbox('off', 'orders', '{\"sink_type\": \"memory\"}'),"
                " tide.relay_disable('off')"
            )
        if version >= 5:
            db.execute("select tide.setting_set('inbox_dlq_alert_max_per_refresh', '7')")
        if version >= 7:
            db.execute("create schema app; select tide.inbox_create('letters', 'app')")
            db.execute("select tide.inbox_write('letters', '{a,b}', null, null, null, null, '{1,2}', null, null)")


def contents(db, version):
    """What of it must not change."""
    queries = [("message", "select id, key, headers, payload, created_at, size from tide.message order by id")]
    if version >= 2:
        queries += [
            ("group", "select group_id, outbox_id, name, offset_id from tide.consumer_group order by group_id"),
            (
                "pipeline",
                "select name, enabled, config, group_id, revision, created_at from tide.pipeline order by name",
            ),
            (
                "dead",
                "select dead_letter_id, pipeline, message_id, payload, headers, failed_at from tide.dead_letter",
            ),
            ("drain", "select pipeline, epoch, number, delivered from tide.drain order by pipeline"),
        ]
    if version >= 7:
        queries.append(("inbox", "select event_id, payload, received_at, processed_at from app.letters order by 1"))
    if version >= 5:
        queries.append(("setting", "select name, value from tide.setting where value <> default_value order by name"))
    return {name: db.execute(query).fetchall() for name, query in queries}


def dump(database):
    """The schema as pg_dump writes it, without what belongs to single outboxes."""
    url = urlsplit(database.admin_url)
    arguments = [
        "--schema-only",
        "--schema=tide",
        "--exclude-table=tide.message_*",
        "--host=127.0.0.1",
        f"--port={url.port}",
    ]
    program = database.server.clients / "pg_dump"
    done = subprocess.run(
        [program, *arguments, f"--username={url.username}", database.name],
        env=os.environ | {"PGPASSWORD": url.password or ""}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return [line for line in done.stdout.splitlines() if not line.startswith("\\")]


def rows_of(database):
    """The catalogs, and the rows that migrations write; without single outboxes and what people set."""
    with database.connect() as connection:
        found = connection.execute(CATALOG).fetchall()
    ours = [row for row in found if not any(ONE_OUTBOX.search(str(cell)) for cell in row[:3])]
    return sorted(row for row in ours if "inbox_dlq_alert_max_per_refresh" not in row[2])


FRESH: dict[int, Any] = {}


def fresh(empty, version):
    if version not in FRESH:
        migrate(empty.url)
        FRESH[version] = (dump(empty), rows_of(empty))
    return FRESH[version]


@pytest.fixture
def old(pg):
    made = pg.create_database(migrated=False)
    yield made
    pg.drop_database(made)


@pytest.mark.parametrize("version", [m.version for m in migrations()[:-1]])
def test_a_database_of_an_earlier_state_becomes_as_a_fresh_one(old, empty_database, monkeypatch, version):
    migrate_to(old, version, monkeypatch)
    fill(old, version)
    with old.connect() as db:
        before = contents(db, version)
        applied = migrate(old.url)
        assert [m.version for m in applied] == [m.version for m in migrations()[version:]]
        assert contents(db, version) == before
        assert publish(db) == 1501
        db.execute("select tide.outbox_create('new', partition_size => 1000)")
        publish_many(db, 3, "new")
        if version >= 2:
            assert db.execute("select attempts, first_failed_at = failed_at from tide.dead_letter").fetchall() == [
                (1, True)
            ]
            db.execute("select tide.relay_enable('off'), tide.relay_delete('p')")
    schema, rows = fresh(empty_database, old.server.version)
    assert dump(old) == schema
    assert set(rows_of(old)) ^ set(rows) == set()


def test_whoever_could_publish_still_can(old, monkeypatch):
    migrate_to(old, RELEASED, monkeypatch)
    fill(old, RELEASED)
    with logins(old) as login, old.connect() as db:
        _, url = login("grant_publisher")
        by_hand, by_hand_url = login()
        db.execute(f"grant usage on schema tide to {by_hand}")
        db.execute(f"grant execute on function tide.outbox_publish(text, jsonb, jsonb, text) to {by_hand}")
        other, _ = login()
        migrate(old.url)
        for guarded in (False, True):
            if guarded:
                db.execute("select tide.outbox_grant_publish('orders', %s)", [other])
            for who in (url, by_hand_url):
                with psycopg.connect(who, autocommit=True) as session:
                    assert publish(session) > 1500


def test_a_migration_lets_publishers_go_on_while_a_long_transaction_is_in_its_way(old, monkeypatch):
    migrate_to(old, RELEASED, monkeypatch)
    fill(old, RELEASED)
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
            assert migration.result(60)
            go_on()
        finally:
            long.rollback()
            stop.set()
        for publisher in publishers:
            publisher.result(20)
        # Twice the lock's limit would be enough on a machine that has nothing else to do.
        assert max(slowest) < 10 * relay.database.migrate.LOCK_SECONDS
        assert watch.execute("select count(*) from tide.message").fetchone() == (1501 + sum(published),)


def test_a_migration_that_is_in_the_way_for_too_long_gives_up_and_changes_nothing(old, monkeypatch):
    migrate_to(old, RELEASED, monkeypatch)
    fill(old, RELEASED)
    with old.connect(autocommit=False) as long:
        publish(long)
        with pytest.raises(NotConnected, match=r"lock timeout.*nothing was changed") as caught:
            migrate(old.url, timeout_seconds=0.8)
        assert caught.value.code == "locked"
    with old.connect() as db:
        assert check(db).applied == (1, 2)
    assert migrate(old.url)


def test_what_is_current_needs_no_right_to_create(database):
    with logins(database) as login:
        _, url = login("grant_reader")
        assert migrate(url) == []


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
            assert migrate(database.url) == []
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
        patient.look(db)
        eager.look(db)
        db.execute("insert into tide.migration (version, name) values (9999, 'last')")
        patient.look(db)
        with pytest.raises(MigrationError):
            eager.look(db)
