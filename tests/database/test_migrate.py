"""The script that `relay migrate --print` gives. What it does to a database: tests/sql/schema/test_migrations.py."""

from relay.database.migrate import State, _release, script
from relay.sql import Migration, functions, migrations, roles


def test_the_script_is_one_transaction_under_the_lock():
    lines = [line for line in script().splitlines() if line and not line.startswith("--")]
    assert lines[0] == "begin isolation level read committed;"
    assert lines[1].startswith("select pg_advisory_xact_lock(")
    assert lines[-1] == "commit;"


def test_the_script_holds_every_migration_in_order_and_records_it():
    text, at = script(), 0
    for migration in migrations():
        compatible = str(migration.compatible).lower()
        record = f"values ({migration.version}, '{migration.name}', {compatible});"
        begins = text.index(f"-- {migration.version:04}_{migration.name}")
        assert at <= begins < text.index(migration.sql.strip()) < text.index(record)
        at = text.index(record)


def test_the_script_holds_every_function_file_after_the_migrations_and_records_it():
    text, at = script(), script().index(migrations()[-1].sql.strip())
    for file in functions():
        begins, record = text.index(file.sql.strip()), text.index(f"values ('{file.name}', '{file.checksum}', '")
        assert at < begins < record
        at = record
    assert at < text.index("select tide.apply_permissions();\n\ncommit;")


def test_a_state_is_current_when_nothing_is_missing_or_unknown():
    one = migrations()[:1]
    assert State((1,), (), ()).current
    assert not State((), one, ()).current
    assert not State((1, 9), (), (9,)).current
    assert not State((1,), (), (), functions="behind").current
    assert not State((1,), (), (), functions="ahead").current


def test_a_state_is_workable_when_nothing_is_missing_and_what_is_unknown_is_compatible():
    one = migrations()[:1]
    assert State((1, 9), (), (9,)).workable
    assert not State((1, 9), (), (9,), (9,)).workable
    assert not State((), one, ()).workable
    assert State((1,), (), (), functions="ahead").workable
    assert not State((1,), (), (), functions="behind").workable


def test_a_migration_is_compatible_only_if_a_line_of_its_own_says_so():
    assert Migration(1, "x", "-- What it does.\n-- compatible: yes\n\nselect 1;").compatible
    for text in ("select 1;", "-- compatible: no\nselect 1;", "-- not compatible: yes\nselect 1;", "--compatible: yes"):
        assert not Migration(1, "x", text).compatible


def test_the_roles_are_part_of_the_script_only_where_they_are_asked_for():
    assert roles().strip() in script(with_roles=True)
    assert roles().strip() not in script()
    assert script(with_roles=True).endswith("commit;\n")


def test_releases_sort_as_versions_do():
    versions = ["0.0.9", "0.1.0a1", "0.1.0a2", "0.1.0b1", "0.1.0rc1", "0.1.0", "0.1.2", "0.1.10", "0.10.0", "1.0.0"]
    assert sorted(set(versions), key=_release) == versions
