"""The check of words finds what CONTRIBUTING.md lists, wherever a line ends, and nothing else."""

import pytest

from tests import words


@pytest.mark.parametrize(
    ("text", "line", "old"),
    [
        ("Nobody knows.", 1, "Nobody"),
        ("It is kept\nfor ever.", 2, "for ever"),
        ("# It is kept for\n# ever, we say.", 1, "for # ever"),
        ("Fine.\n\n'mended' is found in quotes", 3, "mended"),
    ],
)
def test_an_old_word_is_found(text: str, line: int, old: str) -> None:
    [(where, said, instead)] = words.found(text, words.words())
    assert (where, said) == (line, old)
    assert instead


@pytest.mark.parametrize("text", ["We recommend it.", "test_nobody_else", "forever", "For every message"])
def test_a_word_inside_another_is_none(text: str) -> None:
    assert list(words.found(text, words.words())) == []


def test_the_list_is_read() -> None:
    listed = words.words()
    assert len(listed) > 20
    assert listed["mend"] == "fix"
