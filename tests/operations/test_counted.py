"""Numbers for people: one is not many."""

import re

import pytest

from relay.operations.base import counted
from tests.paths import ROOT

_ALWAYS_MANY = re.compile(
    r"\{[\w.()'\[\]]+\} (?:\w+ )?(?:jobs|messages|queues|pipelines|processes|schedulers|workers|letters|rows)\b"
)


@pytest.mark.parametrize(
    ("number", "words", "text"),
    [
        (0, ("job",), "0 jobs"),
        (1, ("job",), "1 job"),
        (2, ("job",), "2 jobs"),
        (1, ("process runs", "processes run"), "1 process runs"),
        (5, ("process runs", "processes run"), "5 processes run"),
    ],
)
def test_a_number_and_its_word(number: int, words: tuple[str, ...], text: str) -> None:
    assert counted(number, *words) == text


@pytest.mark.parametrize("package", ["relay/operations", "relay/cli"])
def test_commands_count_with_it(package: str) -> None:
    files = (ROOT / package).rglob("*.py")
    found = {str(file.name): _ALWAYS_MANY.findall(file.read_text("utf-8")) for file in files}
    assert {name: texts for name, texts in found.items() if texts} == {}
