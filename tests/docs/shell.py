"""The commands of a page, word by word."""

import shlex

from tests.cli.command import invoke
from tests.docs.pages import blocks


def commands(page: str) -> list[list[str]]:
    """Of all blocks `sh`, continuation lines joined."""
    text = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def is_a_verb(words: list[str]) -> None:
    """Fails if this is not a verb of `relay` with options that it has. What it finds does not matter here."""
    program, *arguments = words
    assert program == "relay"
    done = invoke(*arguments, "--help")
    assert done.exit_code == 0, done.output
