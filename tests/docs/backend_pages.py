"""The pages of docs/backends, read by section: one page for each system, with Connection, Sink, Source and Errors."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from relay.backends.registry import SINKS, SOURCES, sink_class, source_class

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "backends"
Direction = Literal["sink", "source"]

ALL: list[tuple[Direction, str]] = [
    *(("sink", name) for name in sorted(SINKS) if name != "memory"),
    *(("source", name) for name in sorted(SOURCES) if name != "memory"),
]
"""(direction, type) of everything that has a page."""

KEY_HEADINGS = ["key", "type", "default", "meaning"]
ERROR_HEADINGS = ["code", "applies to", "what happened", "what to do"]
_ALIASES = re.compile(r"\bAlias(?:es)?: (`\w+`(?:, `\w+`)*)$")


@dataclass(frozen=True, slots=True)
class Key:
    """A row of a table of keys."""

    type: str
    default: str
    meaning: str


def system(direction: Direction, name: str) -> str:
    """The page of a sink or source: the package of its class."""
    module = (SINKS if direction == "sink" else SOURCES)[name].partition(":")[0]
    return module.split(".")[2]


def config_model(direction: Direction, name: str) -> Any:
    return (sink_class(name) if direction == "sink" else source_class(name)).config_model


def page(name: str) -> str:
    """The text of a system's page."""
    return (FOLDER / f"{name}.md").read_text("utf-8")


def section(text: str, heading: str) -> str:
    """What stands under `## heading`, its subsections included. Without regard to case, so an anchor names it too."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    found = [body for title, body in zip(parts[1::2], parts[2::2], strict=True) if title.lower() == heading.lower()]
    assert len(found) == 1, f"{len(found)} sections {heading!r}"
    return found[0]


def tables(text: str) -> Iterator[list[list[str]]]:
    """The cells of each table, the headings in the first row."""
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        headings, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        assert all(len(row) == len(headings) for row in rows), rows
        yield [headings, *rows]


def _rows(text: str, headings: list[str]) -> list[list[str]]:
    return [row for table in tables(text) if table[0] == headings for row in table[1:]]


def keys(direction: Direction, name: str) -> dict[str, Key]:
    """The keys of a sink or source, those of the connection included, by name and by alias."""
    text = page(system(direction, name))
    listed: dict[str, Key] = {}
    for cells in _rows(section(text, "Connection") + section(text, direction), KEY_HEADINGS):
        first, *others = cells
        assert re.fullmatch(r"`\w+`", first), f"one key in each row: {first}"
        assert all(others), cells
        aliases = _ALIASES.search(cells[3])
        for key in re.findall(r"\w+", f"{first} {aliases[1] if aliases else ''}"):
            assert key not in listed, f"{key} is listed twice"
            listed[key] = Key(*others)
    return listed


def codes(name: str, direction: Direction) -> set[str]:
    """The codes of errors that the page explains for the sink or the source of a system."""
    rows = _rows(section(page(name), "Errors"), ERROR_HEADINGS)
    assert {row[1] for row in rows} <= {"sink", "source", "both"}
    assert all(all(row) for row in rows), rows
    return {code for row in rows if row[1] in (direction, "both") for code in re.findall(r"`(\w+)`", row[0])}


def dead_letters(name: str) -> set[str]:
    """The codes that the page explains as permanent."""
    rows = _rows(section(page(name), "Errors"), ERROR_HEADINGS)
    return {code for row in rows if "*dead letter*" in row[2] for code in re.findall(r"`(\w+)`", row[0])}


def shown(default: Any) -> str:
    """A default as the pages print it."""
    return str(default).lower() if isinstance(default, bool) else str(default)
