"""The loader, and that the SQL files hold to its rules."""

import re

import pytest

from relay.sql import FunctionFile, functions, migrations, parse_statements, query, statements
from tests.paths import ROOT

FILES = [path.read_text("utf-8") for path in (ROOT / "relay/sql/queries").glob("*.sql")]
FUNCTIONS = ROOT / "relay" / "sql" / "functions"
# Names may be quoted or spread over lines: whatever follows the word counts.
DEFINITION = re.compile(r"\bcreate\s+(?:or\s+replace\s+)?(?:function|procedure|trigger)\b", re.IGNORECASE)
DEFINED = re.compile(r"\bcreate or replace (function|procedure|trigger|view) ([\w.]+)")
STATEMENT = re.compile(
    r"create or replace (function|procedure|trigger|view) |comment on (function|procedure|trigger|view) "
)


def test_migrations_are_numbered_from_one_without_gaps_and_in_order():
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))
    assert migrations()[0].name == "baseline"


def code_of(sql: str) -> str:
    """Without comments, and with the bodies and texts between quotes or dollars taken out."""
    return re.sub(r"--[^\n]*|\$(\w*)\$.*?\$\1\$|'(?:[^']|\'\')*'", "", sql, flags=re.DOTALL)


def test_the_order_lists_every_function_file_once():
    assert sorted(file.name for file in functions()) == sorted(path.stem for path in FUNCTIONS.glob("*.sql"))


def test_each_function_is_defined_in_exactly_one_file():
    places: dict[str, set[str]] = {}
    definitions: list[str] = []
    for file in functions():
        for kind, name in DEFINED.findall(code_of(file.sql)):
            places.setdefault(f"{kind} {name}", set()).add(file.name)
        definitions += re.findall(r"create or replace function ([\w.]+\([^)]*\))", code_of(file.sql))
    assert len(places) > 200
    assert {name: sorted(found) for name, found in places.items() if len(found) > 1} == {}
    signatures = [" ".join(definition.split()) for definition in definitions]
    assert sorted({one for one in signatures if signatures.count(one) > 1}) == []


def test_a_function_file_only_creates_or_replaces():
    for file in functions():
        # A body between BEGIN ATOMIC and END has semicolons of its own.
        code = re.sub(r"\bbegin atomic\b.*?(?<=[;c])\s*end;", ";", code_of(file.sql), flags=re.DOTALL)
        wrong = [text.strip() for text in code.split(";") if text.strip() and not STATEMENT.match(text.strip())]
        assert wrong == [], file.name


@pytest.mark.parametrize("migration", migrations(), ids=lambda migration: migration.name)
def test_a_migration_defines_no_function_or_trigger_and_calls_none_of_ours(migration):
    code = code_of(migration.sql)
    assert DEFINITION.findall(migration.sql) == []
    names = {name for file in functions() for _, name in DEFINED.findall(code_of(file.sql))}
    assert [name for name in names if re.search(rf"\b{re.escape(name)}\s*\(", code)] == []


def test_triggers_are_cut_out_of_a_file_and_nothing_else_is():
    for file in functions():
        lines = [line for line in file.sql.splitlines() if line.startswith("create or replace ")]
        left = [line for line in file.without_triggers.splitlines() if line.startswith("create or replace ")]
        assert left == [line for line in lines if not line.startswith("create or replace trigger ")]
        assert (file.without_triggers == file.sql) is (left == lines)


def test_a_checksum_is_of_the_text():
    assert FunctionFile("a", "select 1;").checksum != FunctionFile("a", "select 2;").checksum


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


def test_every_statement_says_in_a_comment_what_it_is_for():
    texts = {name: query(name).splitlines() for name in statements()}
    assert [name for name, lines in texts.items() if not lines[0].startswith("-- ")] == []
    assert [name for name, lines in texts.items() if all(line.startswith("--") for line in lines)] == []


def test_every_statement_is_used():
    sources = "\n".join(
        path.read_text() for folder in ("relay", "workers", "scheduler") for path in (ROOT / folder).rglob("*.py")
    )
    # Names that are put together: f"bell_{bell}", f"pipeline_{verb}".
    built = {"bell_arm", "bell_disarm", "pipeline_enable", "pipeline_disable", "pipeline_delete"}
    assert [name for name in statements() if f'"{name}"' not in sources and name not in built] == []
