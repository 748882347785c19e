"""`relay migrate`: the schema, applied, printed and checked."""

import json
from pathlib import Path

import pytest

from tests.cli.command import environment, invoke, run
from tests.services.postgres import Database


def test_it_brings_an_empty_database_up_once(empty_database: Database) -> None:
    url = empty_database.url
    behind = invoke("migrate", "--check", url=url)
    assert behind.exit_code == 1
    assert "the database is behind, it lacks 0001_baseline, the functions of " in behind.stderr
    applied = invoke("migrate", url=url)
    assert (applied.exit_code, applied.stdout) == (0, "applied 0001_baseline\napplied the functions\n")
    assert invoke("migrate", "--check", url=url).exit_code == 0
    assert invoke("migrate", url=url).stdout == "the database is current\n"
    assert json.loads(invoke("migrate", "--json", url=url).stdout) == {"applied": [], "functions": False}


def test_functions_of_another_version_are_told_and_replaced(database: Database) -> None:
    def record(version: str) -> None:
        with database.connect() as connection:
            connection.execute("update tide.function_file set checksum = 'x', version = %s", [version])

    record("0.0.9")
    behind = invoke("migrate", "--check", url=database.url)
    assert (behind.exit_code, "it lacks the functions of " in behind.stderr) == (1, True)
    assert "it lacks the functions of " not in invoke("status", url=database.url).stderr
    assert "the database lacks the functions of " in invoke("doctor", "--json", url=database.url).stdout
    assert invoke("migrate", url=database.url).stdout == "applied the functions\n"
    record("99.0.0")
    ahead = invoke("migrate", "--check", url=database.url)
    assert (ahead.exit_code, "it has the functions of a later version" in ahead.stdout) == (0, True)
    assert json.loads(invoke("migrate", "--json", url=database.url).stdout) == {"applied": [], "functions": False}
    assert "with which this version can work" in invoke("doctor", "--json", url=database.url).stdout


def test_the_printed_script_does_the_same_and_needs_no_database(empty_database: Database, tmp_path: Path) -> None:
    printed = run("migrate", "--print", cwd=tmp_path, env=environment())
    assert printed.returncode == 0
    with empty_database.connect() as connection:
        connection.execute(printed.stdout)
    checked = invoke("migrate", "--check", "--json", url=empty_database.url)
    assert json.loads(checked.stdout) == {
        "current": True, "missing": [], "unknown": [], "incompatible": [], "functions": "current"
    }  # fmt: skip


def test_a_database_that_is_ahead_is_refused(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("insert into tide.migration (version, name) values (9999, 'later')")
    checked = invoke("migrate", "--check", url=database.url)
    assert (checked.exit_code, "ahead, it has migration 9999" in checked.stderr) == (1, True)
    refused = invoke("migrate", url=database.url)
    assert (refused.exit_code, "upgrade tide-relay" in refused.stderr) == (1, True)
    status = invoke("status", url=database.url)
    assert (status.exit_code, "with which this version cannot work" in status.stderr) == (1, True)


def test_a_database_that_is_ahead_by_what_is_compatible_is_worked_with(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("insert into tide.migration (version, name, compatible) values (9999, 'later', true)")
    checked = invoke("migrate", "--check", url=database.url)
    assert (checked.exit_code, "this version can work with it" in checked.stdout) == (0, True)
    assert invoke("migrate", url=database.url).exit_code == 0
    assert invoke("status", url=database.url).exit_code == 0
    assert "with which this version can work" in invoke("doctor", "--json", url=database.url).stdout


def test_the_roles_are_made_where_that_is_allowed_and_given_their_rights_again(empty_database: Database) -> None:
    url, others = empty_database.url, ("admin", "operator", "reader", "publisher", "consumer")
    with empty_database.admin() as admin:
        try:
            refused = invoke("migrate", "--roles", url=url)
            assert refused.exit_code == 1
            assert "is missing, and tide_owner may not create it. Let a role with CREATEROLE" in refused.stderr
            assert invoke("migrate", "--check", url=url).exit_code == 1
            admin.execute("alter role tide_owner createrole")
            assert invoke("migrate", "--roles", url=url).exit_code == 0
            admin.execute("alter role tide_owner nocreaterole")
            admin.execute("revoke execute on function tide.outbox_status(text) from tide_reader")
            again = invoke("migrate", "--roles", url=url)
            assert (again.exit_code, again.stdout) == (0, "the database is current\n")
            held = admin.execute("select has_function_privilege('tide_reader', 'tide.outbox_status(text)', 'execute')")
            assert held.fetchone() == (True,)
            can = admin.execute(
                "select bool_or(rolcanlogin or rolsuper) from pg_roles where rolname = any(%s)",
                [[f"tide_{name}" for name in others]],
            )
            assert can.fetchone() == (False,)
        finally:
            admin.execute("alter role tide_owner nocreaterole")
            for name in others:
                if admin.execute("select from pg_roles where rolname = %s", [f"tide_{name}"]).fetchone() is not None:
                    admin.execute(f"drop owned by tide_{name}; drop role tide_{name}")


def test_print_and_check_exclude_each_other() -> None:
    assert invoke("migrate", "--print", "--check").exit_code == 2
    assert invoke("migrate", "--roles", "--check").exit_code == 2


@pytest.mark.parametrize(
    "verb", [["migrate"], ["status"], ["doctor"], ["publish", "o"], ["pipeline", "list"], ["pipeline", "show", "p"]]
)
def test_a_server_that_is_not_there_is_one_clear_line(verb: list[str]) -> None:
    url = "postgresql://someone:a-secret-password@127.0.0.1:1/app"
    result = invoke(*verb, url=url, RELAY_BROKER_URL="redis://127.0.0.1:1/0")
    assert result.exit_code == 1
    assert "PostgreSQL: connection failed" in result.output
    assert "a-secret-password" not in result.output and "Traceback" not in result.output


def test_no_url_says_how_to_give_one(tmp_path: Path) -> None:
    done = run("status", cwd=tmp_path)
    assert done.returncode == 1
    expected = "relay status: wrong settings: postgres_url is not set: give --postgres-url or set RELAY_POSTGRES_URL\n"
    assert done.stderr == expected
