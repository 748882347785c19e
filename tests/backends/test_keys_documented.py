"""The tables of keys on the pages of sinks and sources: no key that is not there, and each number with its unit."""

import re
from typing import Any

import pytest

from relay.backends.registry import SINKS, SOURCES, sink_class, source_class
from relay.pipelines.config import SUBJECT_KEYS, parse_forward, parse_reverse
from tests.paths import ROOT

DOCS = ROOT / "docs"
PAGES = [("sinks", name) for name in sorted(SINKS)] + [("sources", name) for name in sorted(SOURCES)]
PAGES = [page for page in PAGES if page[1] != "memory"]
UNITS = {"_ms": "milliseconds", "_seconds": "seconds", "_bytes": "bytes"}


def keys(direction: str, name: str) -> dict[str, list[str]]:
    """key, or another name of it -> its row: key, type, default, meaning."""
    table = (DOCS / direction / f"{name}.md").read_text().partition("\n## Keys\n")[2].partition("\n#")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    headings, _, *rows = rows
    assert headings == ["key", "type", "default", "meaning"]
    assert all(len(row) == 4 and row[1] and row[2] for row in rows), rows
    return {key: row for row in rows for key in re.findall(r"`(\w+)`", row[0])}


def config_model(direction: str, name: str) -> Any:
    return (sink_class(name) if direction == "sinks" else source_class(name)).config_model


@pytest.mark.parametrize(("direction", "name"), PAGES)
def test_every_key_that_is_listed_is_one(direction: str, name: str) -> None:
    fields = config_model(direction, name).model_fields
    known = set(fields)
    for field in fields.values():
        known |= set(getattr(field.validation_alias, "choices", []))
    if direction == "sinks":
        features = sink_class(name).features
        known |= {*SUBJECT_KEYS, *features.subject_aliases, features.subject_key or ""}
    assert keys(direction, name).keys() - known == set()


@pytest.mark.parametrize(("direction", "name"), PAGES)
def test_every_number_has_its_unit(direction: str, name: str) -> None:
    listed = keys(direction, name)
    for key, row in listed.items():
        for ending, unit in UNITS.items():
            if key.endswith(ending):
                assert unit in row[1], f"{key} is a number of {unit}; the page says {row[1]}"


@pytest.mark.parametrize(("direction", "name"), PAGES)
def test_a_key_that_is_not_listed_is_refused(direction: str, name: str) -> None:
    parse, kind = (parse_forward, "sink_type") if direction == "sinks" else (parse_reverse, "source_type")
    with pytest.raises(Exception, match="no_such_key"):
        parse({kind: name, "no_such_key": 1})
