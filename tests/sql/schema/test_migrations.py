"""Migrations: all or nothing, once, one at a time, and the printed script makes the same schema."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from relay.database.migrate import Applied, check, migrate, require_current, script
from relay.errors import ConfigError, MigrationError, NotConnected
from relay.sql import migrations
from tests.sql.schema.catalog import catalog
from tests.sql.support import make_outbox, publish, refused

pytestmark = pytest.mark.each_postgres


def outside(database):
    """Everything outside our schemas that is not PostgreSQL's own."""
    with database.connect() as connection:
        return connection.execute("""
            select 'relation', oid::regclass::text from pg_class where relnamespace not in (
                select oid from pg_namespace
                 where nspname ~ '^(pg_|information_schema$|tide$|tide_(outbox|stream)$|pgtrickle$)')
            union all
            select 'function', oid::regprocedure::text from pg_proc where pronamespace not in (
                select oid from pg_namespace
                 where nspname ~ '^(pg_|information_schema$|tide$|tide_(outbox|stream)$|pgtrickle$)')
            union all
            select 'type', oid::regtype::text from pg_type where typnamespace not in (
                select oid from pg_namespace
                 where nspname ~ '^(pg_|information_schema$|tide$|tide_(outbox|stream)$|pgtrickle$)')
            union all
            select 'schema', nspname::text from pg_namespace
             where nspname !~ '^(pg_|information_schema$|tide$|tide_(outbox|stream)$|pgtrickle$|public$)'
            union all
            select 'extension', extname::text from pg_extension where extname <> 'plpgsql'""").fetchall()


def state(database):
    with database.connect() as connection:
        return check(connection)


def test_from_scratch(empty_database):
    assert not state(empty_database).current
    assert [m.version for m in state(empty_database).missing] == [m.version for m in migrations()]
    assert migrate(empty_database.url) == Applied(migrations(), functions=True)
    assert state(empty_database).current
    with empty_database.connect() as connection:
        require_current(connection)
        make_outbox(connection)
        assert publish(connection) == 1


def test_everything_is_in_the_schemas(empty_database):
    migrate(empty_database.url)
    with empty_database.connect() as connection:
        make_outbox(connection)
    assert outside(empty_database) == []


def test_twice_is_as_good_as_once(empty_database):
    migrate(empty_database.url)
    before = catalog(empty_database)
    assert migrate(empty_database.url) == Applied()
    assert catalog(empty_database) == before


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_many_at_once_apply_everything_once(empty_database, isolation):
    with empty_database.connect() as owner:
        owner.execute(f"alter database {empty_database.name} set default_transaction_isolation = '{isolation}'")
    with ThreadPoolExecutor(6) as pool:
        applied = list(pool.map(lambda _: migrate(empty_database.url), range(6)))
    assert sorted(applied, key=lambda done: done.functions) == [Applied()] * 5 + [Applied(migrations(), functions=True)]


def test_many_processes_at_once_apply_each_migration_once(empty_database):
    program = "import os; from relay.database.migrate import migrate; print(len(migrate(os.environ['URL']).names))"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "URL": empty_database.url},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=60)[0].strip() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert sorted(outputs) == ["0", "0", str(len(migrations()))]


def test_waiting_for_another_migration_has_a_limit(empty_database):
    with empty_database.connect() as other:
        other.execute("begin; select pg_advisory_xact_lock(8388617265747561)")
        with pytest.raises(NotConnected, match="lock timeout") as caught:
            migrate(empty_database.url, timeout_seconds=0.1)
    assert caught.value.code == "locked"


def test_the_script_makes_the_same_schema(pg, empty_database):
    migrate(empty_database.url)
    by_hand = pg.create_database(migrated=False)
    try:
        with by_hand.connect() as connection:
            connection.execute(script())
            require_current(connection)
        assert catalog(by_hand) == catalog(empty_database)
        assert migrate(by_hand.url) == Applied()
    finally:
        pg.drop_database(by_hand)


def test_the_script_is_all_or_nothing(empty_database):
    with empty_database.connect() as connection:
        with refused("22012"):
            connection.execute(script().replace("commit;\n", "select 1 / 0; commit;"))
        connection.execute("rollback")
    assert state(empty_database).applied == ()


def test_the_script_applied_twice_fails_and_changes_nothing(empty_database):
    with empty_database.connect() as connection:
        connection.execute(script())
        before = catalog(empty_database)
        with pytest.raises(psycopg.errors.DuplicateSchema):
            connection.execute(script())
        connection.execute("rollback")
    assert catalog(empty_database) == before


def test_a_failing_migration_leaves_nothing(empty_database):
    with empty_database.connect() as connection:
        connection.execute("create schema tide; create table tide.drain ()")
    with pytest.raises(ConfigError, match="already exists"):
        migrate(empty_database.url)
    assert state(empty_database).applied == ()


def test_a_database_that_is_behind_says_what_to_run(database):
    with database.connect() as connection:
        connection.execute("delete from tide.migration")
        assert [m.version for m in check(connection).missing] == [m.version for m in migrations()]
        with pytest.raises(MigrationError, match="lacks 0001_baseline: run relay migrate"):
            require_current(connection)


def test_a_database_that_is_ahead_is_left_alone(database):
    with database.connect() as connection:
        connection.execute("insert into tide.migration (version, name) values (9999, 'future')")
        assert check(connection).unknown == (9999,)
        with pytest.raises(MigrationError, match=r"ahead .*9999, .*cannot work; upgrade tide-relay"):
            require_current(connection)
    with pytest.raises(MigrationError, match="9999"):
        migrate(database.url)


def test_a_database_without_the_schema_is_behind(empty_database):
    with (
        empty_database.connect() as connection,
        pytest.raises(MigrationError, match=r"0001_baseline, the functions of \d"),
    ):
        require_current(connection)


def test_a_role_that_may_not_create_is_told_where_to_read(empty_database):
    with empty_database.admin() as admin:
        admin.execute("create role guest login password 'guest'")
    try:
        guest = empty_database.server.process.url_of(empty_database.name, "guest", "guest")
        with pytest.raises(ConfigError, match=r"permission denied.*docs/security.md"):
            migrate(guest)
    finally:
        with empty_database.admin() as admin:
            admin.execute("drop role guest")
