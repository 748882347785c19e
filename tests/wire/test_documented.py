"""docs/reference/wire-formats.md tells the truth."""

import json
import re
from typing import Any

import pytest

from relay.backends.registry import SINKS, sink_class
from relay.pipelines.config import ForwardPipeline
from relay.wire.decode import CODES, EVENT_VARIABLES
from relay.wire.decode import FORMATS as DECODED
from relay.wire.encode import FORMATS
from relay.wire.formats.base import DEFAULT_SOURCE, DEFAULT_TYPE
from relay.wire.templates import RECORD_VARIABLES, TEMPLATE_VARIABLES
from tests.docs.backend_pages import tables
from tests.paths import ROOT
from tests.wire.test_encode import NOON, Message, wire

DOCS = ROOT / "docs"
WIRE = (DOCS / "reference" / "wire-formats.md").read_text()


def test_every_format_and_variable_is_explained() -> None:
    assert not [name for name in FORMATS if f"`{name}`" not in WIRE]
    assert not [name for name in TEMPLATE_VARIABLES if f"`{{{name}}}`" not in WIRE]


@pytest.mark.parametrize("sink_type", sorted(SINKS.keys() - {"memory"}))
def test_the_default_format_of_a_sink_is_the_one_that_is_named(sink_type: str) -> None:
    (formats,) = [table for table in tables(WIRE) if table[0] == ["`wire_format`", "the body is", "default of"]]
    default_of = {row[0].strip("`"): row[2].lower() for row in formats}
    assert sink_type in default_of[sink_class(sink_type).features.default_wire_format]


def test_every_code_and_every_variable_of_the_way_back_is_explained() -> None:
    way_back = WIRE.partition("## The way back")[2]
    assert not [code for code in CODES if f"`{code}`" not in way_back]
    assert not [name for name in EVENT_VARIABLES if f"`{{{name}}}`" not in way_back]
    assert not [name for name in DECODED if f"`{name}`" not in way_back and f"**{name}**" not in way_back]


def test_every_variable_of_a_sinks_own_template_is_explained() -> None:
    own = WIRE.partition("### Templates of a sink's own")[2].partition("## Wire formats")[0]
    assert not [name for name in RECORD_VARIABLES if f"`{{{name}}}`" not in own]


def test_the_keys_of_cloudevents_have_the_defaults_that_are_stated() -> None:
    for key, default in (("cloudevents_source", DEFAULT_SOURCE), ("cloudevents_type", DEFAULT_TYPE)):
        assert key in ForwardPipeline.model_fields
        assert f"`{key}` of the pipeline, a template; default: `{default}`" in WIRE


def test_the_examples_are_what_is_sent() -> None:
    examples: list[dict[str, Any]] = [json.loads(text) for text in re.findall(r"```json\n(.*)\n```", WIRE)]
    shown = dict(zip(["envelope", "cloudevents_structured", "debezium"], examples, strict=True))
    noon = NOON.replace("000005", "000000")
    for name, example in shown.items():
        headers = b'{"op": "update"}' if name == "envelope" else b'{"type": "order.paid"}'
        message = Message(17, "customer-4", b'{"total": 12.5}', headers, noon)
        (record,) = wire(wire_format=name, keeps_headers=False).records([message])
        assert json.loads(record.body) == example
        assert list(json.loads(record.body)) == list(example)
