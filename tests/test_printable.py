"""What a terminal would obey or hide is shown as an escape, and JSON keeps its meaning."""

import json
import re
import sys
import unicodedata

import pytest

from relay.printable import printable, printable_json, printable_lines
from tests.paths import ROOT

HARMLESS = "plain, ü, 中文, عربي, 🙂, e\N{COMBINING ACUTE ACCENT}"


@pytest.mark.parametrize("category", ["Cc", "Cf", "Cs", "Zl", "Zp"])
def test_no_character_of_these_kinds_gets_through(category):
    # Those of Cf that are seen: signs that stand before or around numbers, and musical or hieroglyphic layout.
    seen = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0x13430, 0x13456)}
    of_kind = [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) == category and c not in seen]
    assert [c for c in of_kind if c in printable(c)] == []
    assert {c for c in of_kind if c in printable_lines(c)} <= {"\n", "\t"}
    text = json.dumps(" ".join(of_kind), ensure_ascii=False)
    shown = printable_json(text)
    assert json.loads(shown) == json.loads(text)
    assert [c for c in of_kind if c in shown] == []


def test_what_is_harmless_stays():
    assert printable(HARMLESS) == printable_lines(HARMLESS) == printable_json(HARMLESS) == HARMLESS


def test_an_escape_says_which_character_it_was():
    assert printable("a\x1b[2J\n\u202e\U000e0041") == "a\\x1b[2J\\n\\u202e\\U000e0041"


def test_verbs_write_only_by_what_makes_texts_printable():
    """Of `relay.cli.base`; our own SQL is as it is."""
    others = [path for path in (ROOT / "relay" / "cli").glob("*.py") if path.name != "base.py"]
    lines = [line.strip() for path in others for line in path.read_text().replace("echo(\n", "echo(").splitlines()]
    assert [line for line in lines if "rich.markup" in line or line.startswith("print(")] == []
    texts = [text for line in lines for text in re.findall(r"(?<!\w)Text\([^)]*\)", line)]
    assert set(texts) <= {'Text("")', 'Text(", ")', 'Text(" " * GAP)'}  # what holds others together
    echoes = [line for line in lines if "click.echo(" in line and "printable_lines(" not in line]
    assert echoes == ["click.echo(schema.script(with_roles=with_roles), nl=False)"]
