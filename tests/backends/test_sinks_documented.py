"""The pages of docs/sinks name every key with its default, and every code of failure."""

import re
from typing import Any

import pytest

from relay.backends.nats.errors import ERRORS
from relay.backends.registry import SINKS, sink_class
from relay.wire.encode import FORMATS
from relay.wire.templates import TEMPLATE_VARIABLES
from tests.paths import ROOT

DOCS = ROOT / "docs"
DOCUMENTED = sorted(SINKS.keys() - {"memory"})


def rows(page: str) -> list[list[str]]:
    """The cells of every table row of a page."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]


def shown(default: Any) -> str:
    return {True: "true", False: "false"}.get(default, str(default)) if isinstance(default, bool) else str(default)


@pytest.mark.parametrize("sink_type", DOCUMENTED)
def test_every_key_is_listed_with_its_default(sink_type: str) -> None:
    page = (DOCS / "sinks" / f"{sink_type}.md").read_text()
    listed = {key: row[2] for row in rows(page) if len(row) == 4 for key in re.findall(r"`(\w+)`", row[0])}
    for name, field in sink_class(sink_type).config_model.model_fields.items():
        assert name in listed, f"{name} is not in docs/sinks/{sink_type}.md"
        if field.is_required():
            assert listed[name] == "(required)"
        elif field.default is not None:
            assert shown(field.default) == listed[name].strip('`"')
        for choice in getattr(field.validation_alias, "choices", []):
            assert choice in listed


@pytest.mark.parametrize("sink_type", DOCUMENTED)
def test_defaults_of_the_pipeline_are_true(sink_type: str) -> None:
    formats = {
        row[0].strip("`"): row[2] for row in rows((DOCS / "reference" / "wire-formats.md").read_text()) if len(row) == 3
    }
    assert sink_type in formats[sink_class(sink_type).features.default_wire_format].lower()


def test_every_code_of_nats_is_explained() -> None:
    page = (DOCS / "sinks" / "nats.md").read_text()
    codes = ERRORS.codes - (ERRORS.needs_operator - {"no_stream"})
    assert not {code for code in codes | {"forbidden", "not_sent"} if f"`{code}`" not in page}


def test_every_format_and_variable_is_explained() -> None:
    page = (DOCS / "reference" / "wire-formats.md").read_text()
    assert all(f"`{name}`" in page for name in FORMATS)
    assert all(f"`{{{name}}}`" in page for name in TEMPLATE_VARIABLES)
