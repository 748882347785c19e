"""docs/reference/dead-letters.md: its SQL runs as printed, signatures are real, an operator needs no more rights."""

import re
from collections.abc import Iterator

import psycopg
import pytest

from tests.cli.command import invoke
from tests.cli.dead_letters import Refusing
from tests.docs.pages import blocks, text_of
from tests.services.postgres import Database

CALLS = r"tide\.(relay_(?:dlq|replay|replays|config_history)\w*)\((.*?)\)"
SIGNATURES = """
    select proname, pg_get_function_arguments(oid), proargnames[1:pronargs] from pg_proc
     where pronamespace = 'tide'::regnamespace and proname ~ '^relay_(dlq|replay|config_history)'
"""


def test_every_block_runs_from_the_top_down(database: Database) -> None:
    with database.connect() as connection:
        for block in blocks("reference/dead-letters"):
            connection.execute(block)


def test_every_function_is_there_with_its_arguments_and_defaults(database: Database) -> None:
    with database.connect() as connection:
        found = connection.execute(SIGNATURES).fetchall()
    headings = "\n".join(re.findall(r"^### .*$", text_of("reference/dead-letters"), re.MULTILINE))
    told = {(name, *(_words(part) for part in arguments.split(","))) for name, arguments in re.findall(CALLS, headings)}
    real = {(name, *_real(arguments, list(names))) for name, arguments, names in found}
    assert told == real and len(real) == 12


def _words(argument: str) -> tuple[str, str]:
    """`max_rows => 1000` -> its name and its default, which may be empty."""
    found = re.fullmatch(r"\s*(\w+)(?: (?:bigint|text))?(?:(?: default| =>) (.+))?", argument)
    assert found, argument
    return found[1], (found[2] or "").strip("'")


def _real(arguments: str, names: list[str]) -> Iterator[tuple[str, str]]:
    parts = [part for part in arguments.split(", ") if not part.startswith(("OUT ", "TABLE"))]
    for name, part in zip(names, parts, strict=False):
        default = part.partition(" DEFAULT ")[2].partition("::")[0].strip("'")
        yield name, "null" if default == "NULL" else default


@pytest.fixture
def bench(database: Database) -> Iterator[Refusing]:
    made = Refusing(database)
    yield made
    made.close()


def test_an_operator_needs_no_more_than_the_rights_of_one(bench: Refusing) -> None:
    first, second = bench.bury(2)
    with bench.database.admin() as admin:
        admin.execute("create role verbs_operator login password 'secret'")
        try:
            bench.query("select tide.grant_operator('verbs_operator')")
            url = bench.database.server.process.url_of(bench.database.name, "verbs_operator", "secret")
            for words in (
                "dead-letter list --json", "dead-letter stats", f"dead-letter show {first}",
                f"dead-letter retry {first}",
                f"dead-letter discard {second} --yes", "dead-letter discard --pipeline p --yes", "replay p 1 --dry-run",
                "replay p 1 2", "replays list p", "replays cancel 1", "history p",
            ):  # fmt: skip
                result = invoke(*words.split(), url=url)
                assert result.exit_code == 0, (words, result.output)
            [(who,)] = bench.query("select requested_by from tide.relay_replays()")
            assert who == "verbs_operator"
            with psycopg.connect(url) as operator, pytest.raises(psycopg.errors.InsufficientPrivilege):
                operator.execute("delete from tide.dead_letter")
        finally:
            admin.execute("drop owned by verbs_operator")
            admin.execute("drop role verbs_operator")
