"""The script that `relay migrate --print` gives. What it does to a database: tests/sql/test_migrations.py."""

from relay.migrate import State, script
from relay.sql import migrations


def test_the_script_is_one_transaction_under_the_lock():
    lines = [line for line in script().splitlines() if line and not line.startswith("--")]
    assert lines[0] == "begin isolation level read committed;"
    assert lines[1].startswith("select pg_advisory_xact_lock(")
    assert lines[-1] == "commit;"


def test_the_script_holds_every_migration_in_order_and_records_it():
    text, at = script(), 0
    for migration in migrations():
        record = f"insert into tide.migration (version, name) values ({migration.version}, '{migration.name}');"
        begins = text.index(f"-- {migration.version:04}_{migration.name}")
        assert at <= begins < text.index(migration.sql.strip()) < text.index(record)
        at = text.index(record)


def test_a_state_is_current_when_nothing_is_missing_or_unknown():
    one = migrations()[:1]
    assert State((1,), (), ()).current
    assert not State((), one, ()).current
    assert not State((1, 9), (), (9,)).current
