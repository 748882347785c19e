"""The pages of docs/sources name every key with its default, and every code of failure."""

import re
from typing import Any

import pytest

from relay.backends.nats.errors import ERRORS
from relay.backends.registry import SOURCES, source_class
from tests.paths import ROOT

DOCS = ROOT / "docs"
DOCUMENTED = sorted(SOURCES.keys() - {"memory"})

# Codes that only what is published can have, or a stream that is made.
OF_THE_NATS_SINK = {"too_large", "bad_header", "bad_subject", "limits", "stream_full", "wrong_stream", "out_of_order"}


def rows(page: str) -> list[list[str]]:
    """The cells of every table row of a page."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]


def shown(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


@pytest.mark.parametrize("source_type", DOCUMENTED)
def test_every_key_is_listed_with_its_default(source_type: str) -> None:
    page = (DOCS / "sources" / f"{source_type}.md").read_text()
    listed = {key: row[2] for row in rows(page) if len(row) == 4 for key in re.findall(r"`(\w+)`", row[0])}
    for name, field in source_class(source_type).config_model.model_fields.items():
        assert name in listed, f"{name} is not in docs/sources/{source_type}.md"
        if field.is_required():
            assert listed[name] == "(required)"
        elif field.default not in (None, [], {}):
            assert shown(field.default) == listed[name].strip('`"'), name
        for choice in getattr(field.validation_alias, "choices", []):
            assert choice in listed


@pytest.mark.parametrize("source_type", DOCUMENTED)
def test_the_default_format_is_the_one_that_is_named(source_type: str) -> None:
    page = (DOCS / "sources" / f"{source_type}.md").read_text()
    named = re.findall(r"default\s+`wire_format`\s+is\s+`(\w+)`", page)
    assert set(named) <= {source_class(source_type).features.default_wire_format}


def test_every_code_of_nats_is_explained() -> None:
    page = (DOCS / "sources" / "nats.md").read_text()
    assert {
        code for code in ERRORS.codes - ERRORS.needs_operator - OF_THE_NATS_SINK if f"`{code}`" not in page
    } == set()
    assert "`no_consumer`" in page
