"""Every verb explains itself, here and in docs/reference/cli.md."""

import re
from collections.abc import Iterator

import click

from relay.cli import main
from tests.cli.command import invoke
from tests.paths import ROOT

DOCS = ROOT / "docs" / "reference" / "cli.md"


def verbs(group: click.Group = main, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from verbs(command, (*before, name))
        else:
            yield (*before, name), command


def test_help_has_an_example_and_exit_codes() -> None:
    for words, _ in verbs():
        text = invoke(*words, "--help").stdout
        assert "Exit codes:" in text, words
        assert re.search(r"Example:\n +.*relay " + " ".join(words), text), words
        assert all(len(line) <= 120 for line in text.splitlines()), words


def test_the_docs_name_every_verb_and_its_own_options() -> None:
    text = DOCS.read_text()
    common = {"--postgres-url", "--broker-url", "--json", "--help"}
    for words, command in verbs():
        names = {name for option in command.params if isinstance(option, click.Option) for name in option.opts[:1]}
        assert [name for name in sorted(names - common | {words[-1]}) if name not in text] == [], words


def test_the_exit_codes_are_those_of_the_docs() -> None:
    codes = re.findall(r"^\| (\d+) \|", DOCS.read_text(), re.MULTILINE)
    assert codes == ["0", "1", "2", "130"]
    assert re.findall(r"^ +(\d+)  ", invoke("--help").stdout, re.MULTILINE) == codes
