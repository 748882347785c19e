"""The loader, and that the SQL files hold to its rules."""

import re
from pathlib import Path

import pytest

from relay.sql import migrations, parse_statements, query, statements

ROOT = Path(__file__).parents[2]
FILES = [path.read_text("utf-8") for path in (ROOT / "relay/sql/queries").glob("*.sql")]


def test_migrations_are_numbered_from_one_without_gaps_and_in_order():
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))
    assert [migration.name for migration in migrations()][:2] == ["outbox", "relay"]


def test_every_statement_is_found_by_its_name():
    names = [name for text in FILES for name in re.findall(r"^-- name: (\w+)", text, re.MULTILINE)]
    assert len(FILES) > 5
    assert sorted(statements()) == sorted(names)
    assert query("listen").endswith("listen tide_relay_config")


def test_headings_between_statements_belong_to_none():
    text = "-- name: one\nselect 1\n\n-- Others --------------\n\n-- name: two\nselect 2\n"
    assert parse_statements([text]) == {"one": "select 1", "two": "select 2"}


def test_a_name_that_is_used_twice_is_refused():
    with pytest.raises(ValueError, match="two statements are named listen"):
        parse_statements(["-- name: listen\nlisten a", "-- name: other\nselect 1\n\n-- name: listen\nlisten b"])


def test_a_statement_that_does_not_exist():
    with pytest.raises(KeyError):
        query("nothing")


@pytest.mark.parametrize("name", list(statements()))
def test_every_statement_says_in_a_comment_what_it_is_for(name):
    lines = query(name).splitlines()
    assert lines[0].startswith("-- ")
    assert any(not line.startswith("--") for line in lines)


def test_every_statement_is_used():
    sources = "\n".join(
        path.read_text() for folder in ("relay", "workers", "scheduler") for path in (ROOT / folder).rglob("*.py")
    )
    # Names that are put together: f"bell_{bell}", f"pipeline_{verb}".
    built = {"bell_arm", "bell_disarm", "pipeline_enable", "pipeline_disable", "pipeline_delete"}
    assert [name for name in statements() if f'"{name}"' not in sources and name not in built] == []
