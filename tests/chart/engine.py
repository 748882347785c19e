"""Runs in the environment of the Helm engine (environment.py): one JSON request a line in, one JSON answer a line out.

A release is remembered in this process alone, as `helm` with HELM_DRIVER=memory does.
"""

import asyncio
import functools
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import helm_sdkpy
import kubernetes_validate
from kubernetes_validate import utils

Answer = dict[str, Any]

# The definitions of one Kubernetes version are a file of some megabytes, and are read for each object.
utils.schema_contents = functools.cache(utils.schema_contents)

# Several clusters, and namespaces of each.
_configurations: dict[tuple[str, str], helm_sdkpy.Configuration] = {}


def configuration(kubeconfig: str, namespace: str) -> helm_sdkpy.Configuration:
    key = (kubeconfig, namespace)
    if key not in _configurations:
        _configurations[key] = helm_sdkpy.Configuration(namespace=namespace, kubeconfig=kubeconfig)
    return _configurations[key]


async def install(kubeconfig: str, namespace: str, release: str, chart: str, values: Answer) -> Answer:
    action = helm_sdkpy.Install(configuration(kubeconfig, namespace))
    # Server-side apply, as `helm install` does from version 4 on. Only hooks are waited for: nothing becomes ready.
    done = await action.run(release, chart, values=values, wait=False, timeout=60, server_side_apply=True)
    return {"tests": [hook["manifest"] for hook in done.get("hooks", []) if "test" in hook["events"]]}


async def upgrade(kubeconfig: str, namespace: str, release: str, chart: str, values: Answer) -> Answer:
    action = helm_sdkpy.Upgrade(configuration(kubeconfig, namespace))
    await action.run(release, chart, values=values, wait=False, timeout=60)
    return {}


async def test(kubeconfig: str, namespace: str, release: str) -> Answer:
    await helm_sdkpy.ReleaseTest(configuration(kubeconfig, namespace)).run(release)
    return {}


async def uninstall(kubeconfig: str, namespace: str, release: str) -> Answer:
    await helm_sdkpy.Uninstall(configuration(kubeconfig, namespace)).run(release, wait=False, timeout=60)
    return {}


async def history(kubeconfig: str, namespace: str, release: str) -> Answer:
    revisions = await helm_sdkpy.History(configuration(kubeconfig, namespace)).run(release)
    return {"statuses": [revision["info"]["status"] for revision in revisions]}


async def lint(kubeconfig: str, chart: str) -> Answer:
    """The messages are lost on their way out of the engine; how bad, and in which file, is not."""
    done = await helm_sdkpy.Lint(configuration(kubeconfig, "default")).run(chart)
    levels = ["unknown", "info", "warning", "error"]
    messages = [f"{levels[message['Severity']]}: {message['Path']}" for message in done["Messages"] or []]
    return {"messages": messages}


async def package(kubeconfig: str, chart: str, folder: str) -> Answer:
    return {"path": await helm_sdkpy.Package(configuration(kubeconfig, "default")).run(chart, folder)}


async def validate(objects: list[Answer], version: str) -> Answer:
    """What is wrong with each object, strictly: an unknown field is wrong. A kind without a schema is named."""
    problems, unknown = [], set()
    for one in objects:
        named = f"{one['kind']} {one['metadata']['name']}"
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            problems.append(f"{named}: {'.'.join(map(str, error.path))}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError:
            unknown.add(one["kind"])
    return {"problems": problems, "unknown": sorted(unknown)}


async def validate_custom(objects: list[Answer]) -> Answer:
    """The same for the kinds of the Prometheus operator and of KEDA, one version of each. Takes seconds to load."""
    from cloudcoil.models.keda.v1alpha1 import ScaledObject
    from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor

    models = {model.__name__: model for model in (PrometheusRule, ScaledObject, ServiceMonitor)}
    problems, unknown = [], set()
    for one in objects:
        named = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] not in models:
            unknown.add(one["kind"])
            continue
        try:
            read = models[one["kind"]].model_validate(one)
        except ValueError as error:
            problems.append(f"{named}: {error}")
            continue
        # The models pass over fields that they do not know: those are missing here.
        known = read.model_dump(by_alias=True, exclude_unset=True, mode="json")
        problems += [f"{named}: unknown field {path}" for path in sorted(paths(one) - paths(known))]
    return {"problems": problems, "unknown": sorted(unknown)}


def paths(value: Any, path: str = "") -> set[str]:
    if isinstance(value, dict):
        return {path}.union(*(paths(each, f"{path}.{key}") for key, each in value.items()))
    if isinstance(value, list):
        return {path}.union(*(paths(each, f"{path}[{number}]") for number, each in enumerate(value)))
    return {path}


async def versions() -> Answer:
    return {"versions": list(dict.fromkeys(map(utils.major_minor, utils.all_versions())))}


VERBS: dict[str, Callable[..., Awaitable[Answer]]] = {
    verb.__name__: verb
    for verb in (install, upgrade, test, uninstall, history, lint, package, validate, validate_custom, versions)
}


async def answer(request: Answer) -> Answer:
    try:
        return await VERBS[request.pop("verb")](**request)
    except helm_sdkpy.HelmError as error:
        return {"error": str(error)}


def main() -> None:
    for line in sys.stdin:
        sys.stdout.write(json.dumps(asyncio.run(answer(json.loads(line)))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
