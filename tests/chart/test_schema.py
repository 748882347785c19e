"""The schema refuses values that no one can have meant, wherever they stand: misspelt keys, wrong types."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.chart.discovery import Object
from tests.chart.schema import FREE, is_closed, pointer, refusals, types, values_at, walk, wrong_value
from tests.chart.values import CHART, CI_FILES, DEFAULTS, MINIMAL, ci_values, leaves, merged

LEVELS = [(path, schema) for path, schema in walk() if "object" in types(schema)]
# Where keys are free, one is misspelt only if no name can be like that: `test_schema_engine.py` has a case.
CLOSED = [
    path for path, schema in LEVELS if schema.get("additionalProperties") is False and "patternProperties" not in schema
]
TYPED = [
    (path, schema) for path, schema in walk() if path and types(schema) and not {"object", "array"} >= types(schema)
]


def dotted(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the top"


@pytest.mark.parametrize("values", [MINIMAL, *map(ci_values, CI_FILES)], ids=["the least", *CI_FILES])
def test_values_that_are_meant_are_taken(values: Object) -> None:
    assert refusals(values) == []


def test_the_schema_was_walked() -> None:
    paths = {dotted(path) for path, _ in walk()}
    # Quantities have free names: cpu, memory, those of devices.
    given = {path for path in leaves(DEFAULTS) if not re.search(r"\.(groups|requests|limits|labels)\.", path)}
    assert given <= paths
    assert len(CLOSED) > 40 and len(TYPED) > 150


def test_every_level_is_closed() -> None:
    items = ("initContainers", "extraContainers", "extraVolumes")
    open_levels = {
        dotted(path)
        for path, schema in LEVELS
        if not is_closed(schema) and not FREE & set(path) and (len(path) < 2 or path[-2] not in items)
    }
    assert {path for path in open_levels if not is_of_kubernetes(path)} == set()


def is_of_kubernetes(path: str) -> bool:
    """Lists of objects that the chart passes on as they are."""
    passed_on = (
        "metricsFrom", "apiFrom", "adminFrom", "to", "extraEgress", "relabelings", "metricRelabelings", "tolerations",
        "topologySpreadConstraints", "extraEnv", "extraEnvFrom", "extraVolumeMounts",
    )  # fmt: skip
    return path.endswith(tuple(f".{key}.0" for key in passed_on)) or any(f".{key}.0." in path for key in passed_on)


def not_refused(
    paths: Iterable[tuple[str, ...]], wrong: Callable[[tuple[str, ...]], Any], keywords: set[str]
) -> list[str]:
    """Of these paths those where a wrong value is not refused, or not by one of these rules."""

    def is_refused(path: tuple[str, ...]) -> bool:
        found = refusals(merged(MINIMAL, values_at(path, wrong(path))))
        return any(refusal.pointer == pointer(path) and refusal.keyword in keywords for refusal in found)

    return [dotted(path) for path in paths if not is_refused(path)]


def test_a_misspelt_key_is_refused_everywhere() -> None:
    assert not_refused(CLOSED, lambda _: {"misspelt": 1}, {"additionalProperties"}) == []


def test_a_wrong_type_is_refused_everywhere() -> None:
    schemas = dict(TYPED)
    assert not_refused(schemas, lambda path: wrong_value(schemas[path]), {"type", "enum", "anyOf"}) == []


def test_a_choice_that_there_is_not_is_refused_everywhere() -> None:
    choices = [path for path, schema in TYPED if "enum" in schema]
    assert not_refused(choices, lambda _: "misspelt", {"enum"}) == []


def test_the_table_in_the_readme_has_every_value_with_its_default() -> None:
    assert readme() == leaves(DEFAULTS)


def readme() -> dict[str, Any]:
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \| \S", (CHART / "README.md").read_text(), re.MULTILINE)
    assert len(rows) == len({key for key, _ in rows})
    return {key: json.loads(default) for key, default in rows}
