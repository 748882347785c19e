"""Every value that turns something on or off, and every choice, does that and no more."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.chart.discovery import Object
from tests.chart.helm import Helm
from tests.chart.objects import command_line, main_container, names, of_kind, one_of, pods
from tests.chart.schema import SCHEMA, resolved, walk
from tests.chart.values import DEFAULTS, leaves, merged, minimal, nested

pytestmark = [pytest.mark.xdist_group("chart"), pytest.mark.timeout(900)]

FULL = "tide-tide-relay"
GROUPS = ("forward", "reverse", "streams", "maintenance")
ALL = minimal(api__enabled=True, monitoring__serviceMonitor__enabled=True)


@dataclass
class Switch:
    """`objects` are there when the value is true, and only then; nothing else comes or goes with it."""

    path: str
    objects: set[str]
    among: Object = field(default_factory=lambda: ALL)


def of(component: str, *kinds: str) -> set[str]:
    return {f"{kind} {FULL}-{component}" for kind in kinds}


def of_groups(*kinds: str) -> set[str]:
    return set[str]().union(*(of(f"workers-{group}", *kinds) for group in GROUPS))


RUNS = ("Deployment", "Service", "ServiceMonitor", "NetworkPolicy", "PodDisruptionBudget")
# `helm test` asks a worker's doctor.
DOCTOR = of("doctor", "Pod", "NetworkPolicy")

SWITCHES = [
    Switch("scheduler.enabled", of("scheduler", *RUNS)),
    Switch("scheduler.podDisruptionBudget.enabled", of("scheduler", "PodDisruptionBudget")),
    Switch("workers.enabled", of_groups(*RUNS) | DOCTOR),
    Switch("workers.podDisruptionBudget.enabled", of_groups("PodDisruptionBudget")),
    *(Switch(f"workers.groups.{group}.enabled", of(f"workers-{group}", *RUNS)) for group in GROUPS),
    Switch("workers.groups.jobs.enabled", of("workers-jobs", *RUNS), minimal(
        workers__groups__jobs__jobs__modules=["shop"], monitoring__serviceMonitor__enabled=True)),
    Switch("api.enabled", of("api", *RUNS) | of("api-metrics", "Service")),
    Switch("api.podDisruptionBudget.enabled", of("api", "PodDisruptionBudget")),
    Switch("api.ingress.enabled", of("api", "Ingress")),
    Switch("migrate.enabled", of("migrate", "Job", "NetworkPolicy", "ServiceAccount")),
    Switch("serviceAccount.create", {f"ServiceAccount {FULL}"} | of("migrate", "ServiceAccount")),
    Switch(
        "networkPolicy.enabled",
        set[str]().union(*(of(name, "NetworkPolicy") for name in ("scheduler", "api", "migrate", "doctor")))
        | of_groups("NetworkPolicy"),
    ),
    Switch("monitoring.serviceMonitor.enabled", of_groups("ServiceMonitor") | of("scheduler", "ServiceMonitor")
           | of("api", "ServiceMonitor")),
    Switch("monitoring.prometheusRule.enabled", {f"PrometheusRule {FULL}"}),
    Switch("monitoring.dashboard.enabled", {f"ConfigMap {FULL}-dashboard"}),
]  # fmt: skip


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.path)
def test_on_installs_and_off_does_not(helm: Helm, switch: Switch) -> None:
    on = names(helm.rendered(merged(switch.among, nested(switch.path, True))))
    off = names(helm.rendered(merged(switch.among, nested(switch.path, False))))
    assert on - off == switch.objects
    assert off <= on


def test_roles_are_made_only_when_asked_for(helm: Helm) -> None:
    for roles in (True, False):
        job = one_of(helm.rendered(minimal(migrate__roles=roles)), "Job", "-migrate")
        assert ("--roles" in command_line(main_container(job["spec"]["template"]))) == roles


def test_what_goes_out_is_limited_only_when_asked_for(helm: Helm) -> None:
    for limited in (True, False):
        policies = of_kind(helm.rendered(minimal(networkPolicy__egress__enabled=limited)), "NetworkPolicy")
        assert {"Egress" in one["spec"]["policyTypes"] for one in policies} == {limited}
        assert {bool(one["spec"].get("egress")) for one in policies} == {limited}


@pytest.mark.parametrize("policy", ["Always", "IfNotPresent", "Never"])
def test_the_image_is_pulled_as_chosen(helm: Helm, policy: str) -> None:
    found = pods(helm.rendered(minimal(image__pullPolicy=policy)))
    assert {main_container(pod)["imagePullPolicy"] for _, pod in found} == {policy}


@pytest.mark.parametrize(
    ("key", "variable", "value"),
    [
        *(("logFormat", "RELAY_LOG_FORMAT", value) for value in ("json", "text")),
        *(("logLevel", "RELAY_LOG_LEVEL", value) for value in ("debug", "info", "warning", "error")),
    ],
)
def test_logs_are_as_chosen(helm: Helm, key: str, variable: str, value: str) -> None:
    objects = helm.rendered(minimal(**{f"config__{key}": value}))
    assert one_of(objects, "ConfigMap", FULL)["data"][variable] == value


@pytest.mark.parametrize(
    ("key", "variable", "default", "value", "said"),
    [
        ("secretVariables", "RELAY_SECRET_VARIABLES", "TIDE_SECRET_", ["A_", "B_"], "A_,B_"),
        ("secretVariables", "RELAY_SECRET_VARIABLES", "TIDE_SECRET_", [], "none"),
        ("secretFolders", "RELAY_SECRET_FOLDERS", "/secrets", ["/a", "/b"], "/a,/b"),
        ("sinkFolders", "RELAY_SINK_FOLDERS", "none", ["/a"], "/a"),
        ("sourceFolders", "RELAY_SOURCE_FOLDERS", "none", ["/a"], "/a"),
        ("ambientCredentials", "RELAY_AMBIENT_CREDENTIALS", "false", True, "true"),
        ("jobHttpHosts", "RELAY_JOB_HTTP_HOSTS", "none", ["a.test", "*.b.test"], "a.test,*.b.test"),
    ],
)
def test_pipelines_reach_what_is_chosen(
    helm: Helm, key: str, variable: str, default: str, value: Any, said: str
) -> None:
    for values, expected in ((minimal(), default), (minimal(**{f"config__{key}": value}), said)):
        assert one_of(helm.rendered(values), "ConfigMap", FULL)["data"][variable] == expected


@pytest.mark.parametrize("component", ["scheduler", "workers", "api"])
def test_pods_are_spread_as_chosen(helm: Helm, component: str) -> None:
    suffix = "workers-forward" if component == "workers" else component
    seen = {}
    for kind in ("soft", "hard", "none"):
        values = merged(ALL, nested(f"{component}.antiAffinity", kind))
        pod = one_of(helm.rendered(values), "Deployment", suffix)["spec"]["template"]["spec"]
        seen[kind] = list(pod.get("affinity", {}).get("podAntiAffinity", {}))
    assert seen == {
        "soft": ["preferredDuringSchedulingIgnoredDuringExecution"],
        "hard": ["requiredDuringSchedulingIgnoredDuringExecution"],
        "none": [],
    }


@pytest.mark.parametrize("kind", ["none", "hpa", "keda"])
def test_workers_are_scaled_as_chosen_and_by_one_only(helm: Helm, kind: str) -> None:
    scaling = {"kind": kind, "keda": {"serverAddress": "http://prometheus"}}
    objects = helm.rendered(minimal(workers__autoscaling=scaling))
    wanted = {"none": (0, 0), "hpa": (4, 0), "keda": (0, 4)}[kind]
    assert (len(of_kind(objects, "HorizontalPodAutoscaler")), len(of_kind(objects, "ScaledObject"))) == wanted
    for group in GROUPS:
        spec = one_of(objects, "Deployment", f"workers-{group}")["spec"]
        assert ("replicas" in spec) == (kind == "none"), group


@pytest.mark.parametrize("kind", ["none", "hpa"])
def test_the_api_is_scaled_as_chosen(helm: Helm, kind: str) -> None:
    objects = helm.rendered(minimal(api={"enabled": True, "autoscaling": {"kind": kind}}))
    assert len(of_kind(objects, "HorizontalPodAutoscaler")) == (kind == "hpa")
    assert ("replicas" in one_of(objects, "Deployment", "api")["spec"]) == (kind == "none")


@pytest.mark.parametrize("kind", ["ClusterIP", "NodePort", "LoadBalancer"])
def test_the_service_of_the_api_is_of_the_chosen_type(helm: Helm, kind: str) -> None:
    objects = helm.rendered(minimal(api={"enabled": True, "service": {"type": kind}}))
    assert one_of(objects, "Service", "-api")["spec"]["type"] == kind
    assert one_of(objects, "Service", "-api-metrics")["spec"]["type"] == "ClusterIP"


@pytest.mark.parametrize("kind", ["Prefix", "Exact", "ImplementationSpecific"])
def test_the_path_of_the_ingress_is_of_the_chosen_type(helm: Helm, kind: str) -> None:
    objects = helm.rendered(minimal(api={"enabled": True, "ingress": {"enabled": True, "pathType": kind}}))
    paths = one_of(objects, "Ingress", "-api")["spec"]["rules"][0]["http"]["paths"]
    assert [path["pathType"] for path in paths] == [kind]


# What the tests above try, each with all that the schema allows.
TRIED: dict[str, set[Any]] = {
    "image.pullPolicy": {"Always", "IfNotPresent", "Never"},
    "config.logFormat": {"json", "text"},
    "config.logLevel": {"debug", "info", "warning", "error"},
    **{f"{component}.antiAffinity": {"soft", "hard", "none"} for component in ("scheduler", "workers", "api")},
    "workers.autoscaling.kind": {"none", "hpa", "keda"},
    "api.autoscaling.kind": {"none", "hpa"},
    "api.service.type": {"ClusterIP", "NodePort", "LoadBalancer"},
    "api.ingress.pathType": {"Prefix", "Exact", "ImplementationSpecific"},
}


def test_no_switch_is_forgotten() -> None:
    tried = {switch.path for switch in SWITCHES} | {
        "migrate.roles",
        "networkPolicy.egress.enabled",
        "config.ambientCredentials",
    }
    assert {path for path, value in leaves(DEFAULTS).items() if isinstance(value, bool)} == tried


def test_no_choice_is_forgotten() -> None:
    # A group has the choices of all groups, and items of lists are Kubernetes' own.
    choices = {
        ".".join(path): set(resolved(schema)["enum"])
        for path, schema in walk(SCHEMA)
        if "enum" in schema and "groups" not in path and "0" not in path
    }
    assert choices == TRIED
