"""The schema of the chart's values: walking it, and what it refuses."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jsonschema

from tests.chart.discovery import Object
from tests.chart.values import CHART, in_full

SCHEMA: Object = json.loads((CHART / "values.schema.json").read_text())
_VALIDATOR = jsonschema.Draft7Validator(SCHEMA)

# The keys of these are the user's, or Kubernetes' own, which checks them itself.
FREE = {"global", "affinity", "nodeAffinity", "podAffinity", "podAntiAffinity"}


class Refusal(NamedTuple):
    pointer: str
    """Where in the values, as a JSON pointer: `/config/logLevel`."""
    keyword: str
    """Which rule of the schema."""
    message: str


def refusals(values: Object) -> list[Refusal]:
    """What the schema says against an installation with these values. `test_schema_engine.py`: Helm says the same."""
    errors = _VALIDATOR.iter_errors(in_full(values))
    return [Refusal(pointer(error.absolute_path), str(error.validator), error.message) for error in errors]


def pointer(path: Iterable[str | int]) -> str:
    return "".join(f"/{key}" for key in path)


def resolved(schema: Object) -> Object:
    """Without `$ref`."""
    while "$ref" in schema:
        target: Any = SCHEMA
        for key in schema["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def walk(schema: Object = SCHEMA, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Object]]:
    """Every schema below, by its path in the values. An item of a list is `0`, one of a map of free keys `forward`."""
    schema = resolved(schema)
    yield path, schema
    for key, below in schema.get("properties", {}).items():
        yield from walk(below, (*path, key))
    free = [schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()]
    for below in (each for each in free if isinstance(each, dict)):
        yield from walk(below, (*path, "forward"))
    if "items" in schema:
        yield from walk(schema["items"], (*path, "0"))


def is_closed(schema: Object) -> bool:
    """Whether it says of every key what may stand there."""
    return "additionalProperties" in schema and schema["additionalProperties"] is not True


def values_at(path: tuple[str, ...], value: Any) -> Any:
    """Values with this at that path, and nothing else."""
    for key in reversed(path):
        value = [value] if key == "0" else {key: value}
    return value


WRONG: list[tuple[str, Any]] = [
    ("boolean", True), ("string", "wrong"), ("integer", 7), ("array", [7]), ("object", {"wrong": 7}),
]  # fmt: skip


def types(schema: Object) -> set[str]:
    """JSON types that it takes; that of an enum is the type of its first value."""
    named = schema.get("type", [])
    found = {named} if isinstance(named, str) else set(named)
    for alternative in [*schema.get("anyOf", []), *schema.get("oneOf", [])]:
        found |= types(resolved(alternative))
    if "enum" in schema and not found:
        found = {"string"}
    return found


def wrong_value(schema: Object) -> Any:
    """A value of a type that the schema does not take."""
    taken = types(schema)
    return next(value for name, value in WRONG if name not in taken and not (name == "integer" and "number" in taken))
