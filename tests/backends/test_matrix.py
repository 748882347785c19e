"""The README's matrix is whole: every sink and every source is in it, with its page, its guarantee and its test."""

import re
import tomllib

import pytest

from relay.backends.registry import SINKS, SOURCES, sink_class, source_class
from tests.backends.harness import Harness
from tests.backends.source_harness import SourceHarness
from tests.backends.source_suite import SourceSuite
from tests.backends.suite import SinkSuite
from tests.backends.variants import Suite, modules, scenarios
from tests.docs.backend_pages import FOLDER, Direction, system
from tests.paths import ROOT

HEADINGS = [
    "backend", "forward: `sink_type`", "reverse: `source_type`", "guarantee, forward", "guarantee, reverse", "extra",
]  # fmt: skip
FORWARD, REVERSE, GUARANTEE_FORWARD, GUARANTEE_REVERSE, EXTRA = range(1, 6)
DIRECTIONS: dict[Direction, int] = {"sink": FORWARD, "source": REVERSE}

# Sources that no worker drains have no contract with a drain. These tests hold what they promise instead.
PASSIVE = {"stdin": "tests/cli/test_receive.py", "webhook": "tests/web/test_api.py"}


def matrix() -> list[list[str]]:
    """Its rows, without the headings."""
    section = (ROOT / "README.md").read_text().partition("## What it connects\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    headings, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert headings == HEADINGS
    return rows


ROWS = matrix()


def links(column: int) -> dict[str, str]:
    """type -> the page that its cell links to."""
    return {name: page for row in ROWS for name, page in re.findall(r"\[`(\w+)`\]\(([^)]+)\)", row[column])}


def cell_of(name: str, column: int, wanted: int) -> str:
    """What the row whose `column` links this type says in another column."""
    (row,) = [row for row in ROWS if f"[`{name}`]" in row[column]]
    return row[wanted]


def test_no_cell_is_empty() -> None:
    assert [len(row) for row in ROWS] == [len(HEADINGS)] * len(ROWS)
    assert [cell for row in ROWS for cell in row if not re.search(r"\w{3}", cell)] == []


def test_it_names_every_sink_and_every_source_and_no_other() -> None:
    assert links(FORWARD).keys() == SINKS.keys() - {"memory"}
    assert links(REVERSE).keys() == SOURCES.keys() - {"memory"}


def test_each_name_leads_to_its_page() -> None:
    for direction, column in DIRECTIONS.items():
        assert links(column) == {
            name: f"docs/backends/{system(direction, name)}.md#{direction}" for name in links(column)
        }


def test_there_is_no_page_that_it_does_not_lead_to() -> None:
    pages = {str(path.relative_to(ROOT)) for path in FOLDER.iterdir()}
    assert pages == {link.partition("#")[0] for column in DIRECTIONS.values() for link in links(column).values()}


def test_the_extras_exist_and_each_page_says_how_to_install_its_own() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for row in ROWS:
        named = re.findall(r"`([\w-]+)`", row[EXTRA])
        assert named or row[EXTRA] == "none needed"
        pages = "".join((ROOT / page).read_text() for page in re.findall(r"\((docs/[^)#]+)", "".join(row[1:3])))
        for extra in named:
            assert extra in extras
            assert re.search(rf"tide-relay\[(?:[\w-]+,)*{extra}\]", pages), extra


@pytest.mark.parametrize("sink_type", sorted(SINKS.keys() - {"memory"}))
def test_the_guarantee_of_a_sink_is_what_its_class_promises(sink_type: str) -> None:
    features = sink_class(sink_type).features
    said = cell_of(sink_type, FORWARD, GUARANTEE_FORWARD)
    assert re.search(r"at least once|exactly once|once within", said), said
    # An order that only some destinations keep is said with the condition before it, such as "FIFO: in order".
    assert bool(re.search(r"(?<!: )in order|whole objects", said)) == features.ordered, said
    if features.deduplicates:
        assert re.search(r"exactly once|once within", said), said


@pytest.mark.parametrize("source_type", sorted(SOURCES.keys() - {"memory"}))
def test_the_guarantee_of_a_source_is_what_its_class_promises(source_type: str) -> None:
    features = source_class(source_type).features
    said = cell_of(source_type, REVERSE, GUARANTEE_REVERSE)
    assert said.startswith("exactly once" if features.has_positions else "stored once"), said
    if re.search(r"(?<!: )in order", said):
        assert features.ordered


def runs_all(suite: type[Suite], test_class: type) -> bool:
    return (
        issubclass(test_class, suite)
        and test_class.__name__.startswith("Test")
        and scenarios(test_class) >= scenarios(suite)
    )


def kinds_under(suite: type[Suite], harness: type) -> set[type]:
    """The classes that a whole suite runs on: those of the harnesses in one module with a subclass that runs all."""
    found: set[type] = set()
    for names in modules():
        classes = [value for value in names if isinstance(value, type)]
        if any(runs_all(suite, each) for each in classes):
            kinds = {getattr(each, "kind", None) for each in classes if issubclass(each, harness)}
            found |= {base for kind in kinds if isinstance(kind, type) for base in kind.mro()}
    return found


def test_every_sink_passes_the_contract_suite() -> None:
    known = kinds_under(SinkSuite, Harness)
    assert [name for name in links(FORWARD) if sink_class(name) not in known] == []


def test_every_source_passes_the_contract_suite() -> None:
    known = kinds_under(SourceSuite, SourceHarness)
    assert {name for name in links(REVERSE) if source_class(name) not in known} == PASSIVE.keys()
    assert [name for name in PASSIVE if not source_class(name).features.passive] == []
    assert [path for path in PASSIVE.values() if not (ROOT / path).is_file()] == []
