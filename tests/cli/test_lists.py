"""Verbs that list results end alike: JSON, a table, or a remark."""

import json

import pytest

from tests.cli.command import invoke
from tests.services.postgres import Database


@pytest.mark.parametrize(
    "verb",
    [
        ("jobs", "queue", "list"),
        ("jobs", "schedule", "list"),
        ("jobs", "stats"),
        ("jobs", "workers"),
        ("pipeline", "list"),
        ("outbox", "list"),
        ("inbox", "list"),
    ],
    ids=" ".join,
)
def test_nothing_is_a_remark_with_what_to_do_and_for_programs_an_empty_list(
    database: Database, verb: tuple[str, ...]
) -> None:
    result = invoke(*verb, url=database.url)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "; " in result.stderr and ": relay " in result.stderr
    assert json.loads(invoke(*verb, "--json", url=database.url).stdout) == []
