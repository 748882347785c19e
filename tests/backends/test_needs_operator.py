"""Which failures no retry helps against, in the eyes of those above the seams."""

import importlib
import pkgutil

import pytest

import relay.backends
from relay.backends.common.error_table import ErrorTable
from relay.backends.registry import SINKS, SOURCES, sink_class, source_class
from relay.backends.source import PassiveSource

TABLES = {
    module.name: importlib.import_module(f"relay.backends.{module.name}.errors").ERRORS
    for module in pkgutil.iter_modules(relay.backends.__path__)
    if module.ispkg and importlib.util.find_spec(f"relay.backends.{module.name}.errors")
}


@pytest.mark.parametrize("kind", [*map(sink_class, SINKS), *map(source_class, SOURCES)], ids=lambda kind: kind.__name__)
def test_each_sink_and_source_knows_what_its_table_says_needs_an_operator(kind: type) -> None:
    table: ErrorTable | None = TABLES.get(kind.__module__.split(".")[2])
    if table is not None and not issubclass(kind, PassiveSource):
        assert table.needs_operator <= kind.needs_operator
        assert not table.permanent & kind.needs_operator
