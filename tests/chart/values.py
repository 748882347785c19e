"""The values that the tests install the chart with: each file of its folder ci/, and small changes of the least."""

import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.chart.discovery import Object

CHART = Path(__file__).parents[2] / "deploy" / "helm"
CHART_YAML: Object = yaml.safe_load((CHART / "Chart.yaml").read_text())
DEFAULTS: Object = yaml.safe_load((CHART / "values.yaml").read_text())
CI_FILES = sorted(path.name for path in (CHART / "ci").glob("*.yaml"))
OLDEST_KUBERNETES = re.findall(r">=\s*(\d+\.\d+)", CHART_YAML["kubeVersion"])[0]

# Nothing but what must be given.
MINIMAL: Object = {"postgres": {"existingSecret": "urls"}, "broker": {"existingSecret": "urls"}}


@cache
def _ci_text(name: str) -> str:
    return (CHART / "ci" / name).read_text()


def ci_values(name: str) -> Object:
    values: Object = yaml.safe_load(_ci_text(name))
    return values


def merged(base: Object, change: Object) -> Object:
    """As Helm merges: key by key, a list as a whole, null removes. It shares what it did not change: change nothing."""
    result = dict(base)
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = value
    return result


def in_full(values: Object) -> Object:
    """The values that the templates see: those of the chart, changed by these."""
    return merged(DEFAULTS, values)


def nested(path: str, value: Any) -> Object:
    """`nested("a.b", 1)` is {"a": {"b": 1}}."""
    for key in reversed(path.split(".")):
        value = {key: value}
    result: Object = value
    return result


def minimal(**changes: Any) -> Object:
    """The least, and some values by path, dots written as two underscores."""
    values = MINIMAL
    for path, value in changes.items():
        values = merged(values, nested(path.replace("__", "."), value))
    return values


def leaves(values: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Every value that is no map with keys, by its path."""
    if isinstance(values, dict) and values:
        return {where: leaf for key, value in values.items() for where, leaf in leaves(value, (*path, key)).items()}
    return {".".join(path): values}


def write_with_values(chart: Path, copied_to: Path, values: Object) -> Path:
    """A copy of a chart whose own values are changed: lint takes no others."""
    shutil.copytree(chart, copied_to)
    defaults = yaml.safe_load((chart / "values.yaml").read_text())
    (copied_to / "values.yaml").write_text(yaml.safe_dump(merged(defaults, values)))
    return copied_to
