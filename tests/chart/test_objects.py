"""What the chart installs is valid, complete in itself, and named as the components are."""

import pytest

from tests.chart.helm import Helm
from tests.chart.objects import containers, name_of, names, of_kind, pods, selectors, selects
from tests.chart.values import CHART_YAML, CI_FILES, OLDEST_KUBERNETES, ci_values

pytestmark = [pytest.mark.xdist_group("chart"), pytest.mark.timeout(900)]
each_ci_file = pytest.mark.parametrize("name", CI_FILES)

# Not Kubernetes' own: validate_custom() knows them.
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
COMMON_LABELS = {
    "app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by", "app.kubernetes.io/part-of", "helm.sh/chart",
}  # fmt: skip


@each_ci_file
@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_every_object_is_valid(helm: Helm, name: str, which: str) -> None:
    version = OLDEST_KUBERNETES if which == "oldest" else helm.kubernetes_versions()[-1]
    assert version in helm.kubernetes_versions()
    problems, unknown = helm.validate(helm.rendered(ci_values(name)), version)
    assert not problems
    assert unknown <= CUSTOM


def test_every_object_of_the_prometheus_operator_and_of_keda_is_valid(helm: Helm) -> None:
    objects = [one for name in CI_FILES for one in helm.rendered(ci_values(name)) if one["kind"] in CUSTOM]
    assert {one["kind"] for one in objects} == CUSTOM
    assert helm.validate_custom(objects) == ([], set())


def test_an_unknown_field_of_those_does_not_pass(helm: Helm) -> None:
    spec = {"endpoints": [{"port": "metrics", "intervall": "30s"}], "selector": {}}
    kind = {"apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor", "metadata": {"name": "misspelt"}}
    problems, _ = helm.validate_custom([{**kind, "spec": spec}])
    assert problems == ["ServiceMonitor misspelt: unknown field .spec.endpoints[0].intervall"]


@each_ci_file
def test_no_two_objects_have_one_name(helm: Helm, name: str) -> None:
    objects = helm.rendered(ci_values(name))
    assert len(names(objects)) == len(objects)


@each_ci_file
def test_every_object_has_the_common_labels(helm: Helm, name: str) -> None:
    for one in helm.rendered(ci_values(name)):
        assert one["metadata"]["labels"].keys() >= COMMON_LABELS, name_of(one)
        assert one["metadata"]["labels"]["app.kubernetes.io/version"] == CHART_YAML["appVersion"]


@each_ci_file
def test_every_selector_selects_the_pods_of_one_component(helm: Helm, name: str) -> None:
    objects = helm.rendered(ci_values(name))
    templates = [(owner, pod["metadata"]["labels"]) for owner, pod in pods(objects)]
    for one in objects:
        for where, selector in selectors(one):
            selected = [owner for owner, labels in templates if selects(selector, labels)]
            assert len(selected) == 1, f"{name_of(one)}: {where} selects {selected}"


@each_ci_file
def test_selectors_have_no_version(helm: Helm, name: str) -> None:
    for one in helm.rendered(ci_values(name)):
        for _, selector in selectors(one):
            assert not {"helm.sh/chart", "app.kubernetes.io/version"} & selector.keys(), name_of(one)


@each_ci_file
def test_every_monitor_finds_one_service_with_its_port(helm: Helm, name: str) -> None:
    objects = helm.rendered(ci_values(name))
    services = of_kind(objects, "Service")
    for monitor in of_kind(objects, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        found = [one for one in services if selects(wanted, one["metadata"]["labels"])]
        assert len(found) == 1, name_of(monitor)
        ports = {port["name"] for port in found[0]["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


@each_ci_file
def test_ports_are_named_where_they_are_used(helm: Helm, name: str) -> None:
    objects = helm.rendered(ci_values(name))
    by_owner = dict(pods(objects))
    for service in of_kind(objects, "Service"):
        selector = dict(selectors(service))["selector"]
        pod = next(each for each in by_owner.values() if selects(selector, each["metadata"]["labels"]))
        named = {port["name"] for container in containers(pod) for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named, name_of(service)
    for owner, pod in by_owner.items():
        for container in containers(pod):
            named = {port["name"] for port in container.get("ports", [])}
            probes = [container[key] for key in container if key.endswith("Probe")]
            assert {probe["httpGet"]["port"] for probe in probes if "httpGet" in probe} <= named, owner


@each_ci_file
def test_a_scaled_deployment_is_there_and_has_no_replicas_of_its_own(helm: Helm, name: str) -> None:
    objects = helm.rendered(ci_values(name))
    deployments = {one["metadata"]["name"]: one for one in of_kind(objects, "Deployment")}
    scalers = of_kind(objects, "HorizontalPodAutoscaler") + of_kind(objects, "ScaledObject")
    targets = [one["spec"]["scaleTargetRef"]["name"] for one in scalers]
    assert len(targets) == len(set(targets))
    for target, deployment in deployments.items():
        assert ("replicas" not in deployment["spec"]) == (target in targets), target
    assert set(targets) <= deployments.keys()


@each_ci_file
def test_volumes_are_there_where_they_are_mounted(helm: Helm, name: str) -> None:
    for owner, pod in pods(helm.rendered(ci_values(name))):
        volumes = [volume["name"] for volume in pod["spec"].get("volumes", [])]
        assert len(volumes) == len(set(volumes)), owner
        for container in containers(pod):
            mounts = container.get("volumeMounts", [])
            assert {mount["name"] for mount in mounts} <= set(volumes), owner
            places = [mount["mountPath"] for mount in mounts]
            assert len(places) == len(set(places)), owner


@each_ci_file
def test_what_a_hook_refers_to_is_there_before_it(helm: Helm, name: str) -> None:
    """A first installation runs the migration while nothing else of the release exists."""
    objects = helm.rendered(ci_values(name))
    ours = names(objects)
    for number, one in enumerate(objects):
        if one["kind"] != "Job":
            continue
        needed = references(one["spec"]["template"]) & ours
        assert needed <= names(objects[:number]), name_of(one)


@each_ci_file
def test_what_pods_refer_to_comes_from_the_chart_or_from_the_values(helm: Helm, name: str) -> None:
    values = ci_values(name)
    objects = helm.rendered(values)
    for owner, pod in pods(objects):
        for reference in references(pod) - names(objects):
            assert reference.split()[1] in str(values) or reference == "ServiceAccount default", owner


def references(pod: dict) -> set[str]:
    """Objects that a pod cannot start without."""
    spec = pod["spec"]
    found = {f"ServiceAccount {spec['serviceAccountName']}"}
    for container in containers(pod):
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            found |= {f"Secret {source['secretKeyRef']['name']}"} if "secretKeyRef" in source else set()
            found |= {f"ConfigMap {source['configMapKeyRef']['name']}"} if "configMapKeyRef" in source else set()
        for source in container.get("envFrom", []):
            kind = "ConfigMap" if "configMapRef" in source else "Secret"
            found.add(f"{kind} {source.get('configMapRef', source.get('secretRef'))['name']}")
    for volume in spec.get("volumes", []):
        found |= {f"Secret {volume['secret']['secretName']}"} if "secret" in volume else set()
        found |= {f"ConfigMap {volume['configMap']['name']}"} if "configMap" in volume else set()
    return found
