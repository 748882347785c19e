"""Looking at what was installed."""

from collections.abc import Iterator
from typing import Any

from tests.chart.discovery import Object

Pod = tuple[str, Object]


def name_of(one: Object) -> str:
    """`Deployment tide-tide-relay-scheduler`."""
    return f"{one['kind']} {one['metadata']['name']}"


def names(objects: list[Object]) -> set[str]:
    return {name_of(one) for one in objects}


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def one_of(objects: list[Object], kind: str, suffix: str) -> Object:
    """The object of a kind whose name ends so."""
    found = [one for one in of_kind(objects, kind) if one["metadata"]["name"].endswith(suffix)]
    assert len(found) == 1, f"{kind} ...{suffix}: {sorted(names(objects))}"
    return found[0]


def pods(objects: list[Object]) -> list[Pod]:
    """What is made into pods: the name of the owner, and the template."""
    owners = [one for one in objects if "template" in one.get("spec", {})]
    bare = [(name_of(one), one) for one in of_kind(objects, "Pod")]
    return [(name_of(one), one["spec"]["template"]) for one in owners] + bare


def containers(pod: Object) -> list[Object]:
    spec = pod["spec"]
    found: list[Object] = [*spec.get("initContainers", []), *spec["containers"], *spec.get("ephemeralContainers", [])]
    return found


def main_container(pod: Object) -> Object:
    """The one with our program."""
    component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
    found: Object = next(each for each in pod["spec"]["containers"] if each["name"] == component)
    return found


def command_line(container: Object) -> list[str]:
    return [*container.get("command", []), *container.get("args", [])]


def selectors(one: Object) -> Iterator[tuple[str, Object]]:
    """The label selectors of pods in an object, by where they stand."""
    spec = one.get("spec", {})
    if one["kind"] == "Service" and "selector" in spec:
        yield "selector", spec["selector"]
    elif one["kind"] == "NetworkPolicy":
        yield "podSelector", spec["podSelector"]["matchLabels"]
    elif one["kind"] in ("Deployment", "PodDisruptionBudget", "StatefulSet", "DaemonSet"):
        yield "selector", spec["selector"]["matchLabels"]


def selects(selector: Object, labels: Object) -> bool:
    return selector.items() <= labels.items()


def texts(value: Any) -> Iterator[str]:
    """Every text in an object, keys too."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield str(key)
            yield from texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)
    else:
        yield str(value)
