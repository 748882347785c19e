"""Values that nobody can have meant are refused: misspelt keys, wrong types, contradictions."""

import json
import re
from typing import Any

import pytest

from tests.chart.discovery import Object
from tests.chart.helm import CHART, Helm, Refused
from tests.chart.schema import FREE, is_closed, types, values_at, walk, wrong_value
from tests.chart.values import DEFAULTS, MINIMAL, leaves, merged, minimal

pytestmark = [pytest.mark.xdist_group("chart"), pytest.mark.timeout(900)]

LEVELS = [(path, schema) for path, schema in walk() if "object" in types(schema)]
CLOSED = [path for path, schema in LEVELS if schema.get("additionalProperties") is False]
TYPED = [
    (path, schema) for path, schema in walk() if path and types(schema) and not {"object", "array"} >= types(schema)
]


# Nothing gets there, so all can share it: a client for each would take longer than the refusal.
NOWHERE = "refused"


def dotted(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the top"


def test_the_least_is_enough(helm: Helm) -> None:
    assert helm.rendered(MINIMAL)


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
    passed_on = ("metricsFrom", "apiFrom", "to", "extraEgress", "relabelings", "metricRelabelings", "tolerations",
                 "topologySpreadConstraints", "extraEnv", "extraEnvFrom", "extraVolumeMounts")  # fmt: skip
    return path.endswith(tuple(f".{key}.0" for key in passed_on)) or any(f".{key}.0." in path for key in passed_on)


@pytest.mark.parametrize("path", CLOSED, ids=dotted)
def test_a_misspelt_key_is_refused(helm: Helm, path: tuple[str, ...]) -> None:
    values = merged(MINIMAL, values_at(path, {"misspelt": 1}))
    with pytest.raises(Refused, match="schema") as refused:
        helm.install(values, namespace=NOWHERE)
    assert "misspelt" in str(refused.value)
    assert pointer(path) in str(refused.value)


@pytest.mark.parametrize(("path", "schema"), TYPED, ids=[dotted(path) for path, _ in TYPED])
def test_a_wrong_type_is_refused(helm: Helm, path: tuple[str, ...], schema: Object) -> None:
    with pytest.raises(Refused, match="schema") as refused:
        helm.install(merged(MINIMAL, values_at(path, wrong_value(schema))), namespace=NOWHERE)
    assert pointer(path) in str(refused.value)


def pointer(path: tuple[str, ...]) -> str:
    return "'" + "".join(f"/{key}" for key in path) + "'"


@pytest.mark.parametrize("path", [path for path, schema in TYPED if "enum" in schema], ids=dotted)
def test_a_choice_that_there_is_not_is_refused(helm: Helm, path: tuple[str, ...]) -> None:
    with pytest.raises(Refused, match="value must be one of") as refused:
        helm.install(merged(MINIMAL, values_at(path, "misspelt")), namespace=NOWHERE)
    assert pointer(path) in str(refused.value)


def test_the_table_in_the_readme_has_every_value_with_its_default() -> None:
    assert readme() == leaves(DEFAULTS)


def readme() -> dict[str, Any]:
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \| \S", (CHART / "README.md").read_text(), re.MULTILINE)
    assert len(rows) == len({key for key, _ in rows})
    return {key: json.loads(default) for key, default in rows}


CONTRADICTIONS: list[tuple[str, Object, str]] = [
    ("no database", {"broker": {"existingSecret": "urls"}}, "postgres.existingSecret"),
    ("no broker", {"postgres": {"existingSecret": "urls"}}, "broker.existingSecret"),
    ("two databases", minimal(postgres__url="postgresql://a/b"), "postgres.url and postgres.existingSecret"),
    ("two brokers", minimal(broker__url="redis://a"), "broker.url and broker.existingSecret"),
    ("a rollout that cannot move", minimal(scheduler__rollingUpdate={"maxSurge": 0}), "scheduler.rollingUpdate"),
    ("more at least than at most", minimal(workers__autoscaling={"kind": "hpa", "minReplicas": 9}), "minReplicas 9"),
    ("hpa from zero", minimal(workers__autoscaling={"kind": "hpa", "minReplicas": 0}), "needs kind keda"),
    ("keda without Prometheus", minimal(workers__autoscaling__kind="keda"), "serverAddress"),
    (
        "nothing to scale on",
        minimal(workers__autoscaling={"kind": "hpa", "lagSeconds": 0, "drainsWaiting": 0}),
        "nothing to scale on",
    ),
]


@pytest.mark.parametrize(("values", "said"), [pytest.param(*rest, id=name) for name, *rest in CONTRADICTIONS])
def test_contradictions_are_refused_with_what_to_do(helm: Helm, values: Object, said: str) -> None:
    with pytest.raises(Refused, match=re.escape(said)):
        helm.install(values, namespace=NOWHERE)
