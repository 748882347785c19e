"""What pods run is what our programs take: their arguments, their environment, their ports."""

import re
from typing import Any

import promql_parser
import pytest
from dramatiq.cli import make_argument_parser

from relay.broker.queues import check_queues
from relay.cli import main as relay_command
from relay.setting_values import parse_address, parse_duration_seconds
from relay.settings import Settings, known_variables, variables
from scheduler.cli import main as scheduler_command
from tests.chart.discovery import Object
from tests.chart.helm import Helm, Refused
from tests.chart.objects import Pod, command_line, main_container, of_kind, pods, texts
from tests.chart.running import environment
from tests.chart.values import CHART_YAML, CI_FILES, ci_values, merged, minimal
from workers.jobs.engine import TOLD_SECONDS

pytestmark = [pytest.mark.xdist_group("chart"), pytest.mark.timeout(900)]
each_ci_file = pytest.mark.parametrize("name", CI_FILES)

SECRETS = {"RELAY_POSTGRES_URL", "RELAY_BROKER_URL", "RELAY_API_AUTH_TOKENS", "RELAY_API_READ_ONLY_AUTH_TOKENS"}
# Of dramatiq's command line, which the chart gives in the settings' place.
QUEUES = {"tide.forward", "tide.reverse", "tide.streams", "tide.maintenance"}
JOBS = {
    "workers__groups__jobs": {"enabled": True, "jobs": {"modules": ["shop.jobs"]}},
    "api": {"enabled": True, "admin": {"existingSecret": "tokens", "readOnlySecretKey": "read-only"}},
}
"""With everything that jobs need."""
# Of the libraries below ours.
OTHER_VARIABLES = {"PROMETHEUS_MULTIPROC_DIR"}


def component(pod: Object) -> str:
    label: str = pod["metadata"]["labels"]["app.kubernetes.io/component"]
    return label


def of_component(objects: list[Object], wanted: str) -> list[Pod]:
    return [(owner, pod) for owner, pod in pods(objects) if component(pod) == wanted]


def given_by_user(name: str) -> set[str]:
    return {variable["name"] for part in ci_values(name).values() if isinstance(part, dict)
            for variable in part.get("extraEnv", [])}  # fmt: skip


@each_ci_file
def test_every_variable_is_known(helm: Helm, name: str) -> None:
    objects = helm.rendered(ci_values(name))
    for owner, pod in pods(objects):
        unknown = environment(pod, objects).keys() - known_variables() - OTHER_VARIABLES - given_by_user(name)
        assert not unknown, owner


@each_ci_file
def test_settings_take_every_environment(helm: Helm, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = helm.rendered(ci_values(name))
    for owner, pod in pods(objects):
        given = {key: value for key, value in environment(pod, objects).items() if key.startswith("RELAY_")}
        with monkeypatch.context() as patch:
            for key, value in given.items():
                patch.setenv(key, "redis://broker.invalid" if key == "RELAY_BROKER_URL" else value)
            assert Settings.load().relay_group_id == ci_values(name).get("config", {}).get("relayGroupId", "default"), (
                owner
            )


def test_every_setting_is_given_to_somebody(helm: Helm) -> None:
    objects = helm.rendered(minimal(**JOBS))
    given = set[str]().union(*(environment(pod, objects) for _, pod in pods(objects)))
    assert set(known_variables()) <= given


@each_ci_file
def test_urls_and_tokens_come_from_secrets_and_nothing_else_does(helm: Helm, name: str) -> None:
    objects = helm.rendered(ci_values(name))
    for owner, pod in pods(objects):
        for variable in main_container(pod)["env"]:
            secret = "secretKeyRef" in variable.get("valueFrom", {})
            assert secret == (variable["name"] in SECRETS) or variable["name"] in given_by_user(name), owner


def test_a_password_is_seen_in_secrets_only(helm: Helm) -> None:
    urls = {"postgres__url": "postgresql://a:very-secret@b/c", "broker__url": "redis://:very-secret@b/0"}
    own = {"api__postgres__url": "postgresql://api:very-secret@b/c", "api__enabled": True}
    migrate = {"migrate__postgres__url": "postgresql://owner:very-secret@b/c"}
    values = minimal(**urls, **own, **migrate, postgres__existingSecret="", broker__existingSecret="")
    objects = helm.rendered(values)
    assert of_kind(objects, "Secret")
    for one in objects:
        assert one["kind"] == "Secret" or not any("very-secret" in text for text in texts(one)), one["kind"]


@each_ci_file
def test_dramatiq_takes_the_arguments_of_the_workers(helm: Helm, name: str) -> None:
    values = ci_values(name)
    for owner, pod in of_component(helm.rendered(values), "workers"):
        program, *arguments = command_line(main_container(pod))
        assert program == "dramatiq", owner
        parsed = make_argument_parser().parse_args(arguments)
        assert parsed.broker == "relay.workers", owner
        check_queues(parsed.queues or (), jobs="RELAY_JOB_MODULES" in environment(pod, []))
        variables_of_pod = {each["name"]: each.get("value") for each in main_container(pod)["env"]}
        assert variables_of_pod["RELAY_WORKER_PROCESSES"] == str(parsed.processes), owner
        assert variables_of_pod["RELAY_WORKER_THREADS"] == str(parsed.threads), owner
        assert parsed.worker_shutdown_timeout == values.get("drainTimeoutSeconds", 30) * 1000, owner


@each_ci_file
def test_every_queue_has_its_workers(helm: Helm, name: str) -> None:
    served = set()
    for _, pod in of_component(helm.rendered(ci_values(name)), "workers"):
        parsed = make_argument_parser().parse_args(command_line(main_container(pod))[1:])
        served |= set(parsed.queues or QUEUES) - {"tide.jobs"}
    assert served == QUEUES or not ci_values(name).get("workers", {}).get("enabled", True)


@each_ci_file
def test_our_commands_take_their_arguments(helm: Helm, name: str) -> None:
    commands: dict[str, Any] = {"relay": relay_command, "relay-scheduler": scheduler_command}
    for owner, pod in pods(helm.rendered(ci_values(name))):
        program, *arguments = command_line(main_container(pod))
        if program == "dramatiq":
            continue
        command = commands[program]
        if program == "relay":
            verb, *arguments = arguments
            command = relay_command.get_command(
                relay_command.make_context("relay", ["--help"], resilient_parsing=True), verb
            )
            assert command, owner
        # Parsed, and not run. Raises UsageError.
        command.make_context(program, arguments)


@each_ci_file
def test_pods_get_longer_than_their_programs_take(helm: Helm, name: str) -> None:
    objects = helm.rendered(ci_values(name))
    drain = ci_values(name).get("drainTimeoutSeconds", 30)
    for owner, pod in pods(objects):
        if component(pod) in ("scheduler", "workers", "api"):
            given = environment(pod, objects)
            timeout = given[variables("worker_shutdown_timeout_seconds")[0]]
            assert parse_duration_seconds(timeout) == drain, owner
            before = main_container(pod).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            assert pod["spec"]["terminationGracePeriodSeconds"] >= drain + before + 10, owner
            if grace := given.get(variables("job_grace_seconds")[0]):
                # As `Engine.close` waits, and the end of the process.
                ends = float(str(parse_duration_seconds(grace))) + TOLD_SECONDS + 2 * 5
                assert pod["spec"]["terminationGracePeriodSeconds"] >= ends + 10, owner


def test_a_group_has_the_jobs_image_and_grace_of_its_own_and_others_have_none(helm: Helm) -> None:
    objects = helm.rendered(ci_values("jobs-values.yaml"))
    variables_of = ("RELAY_JOB_MODULES", "RELAY_JOB_QUEUES", "RELAY_JOB_SLOTS", "RELAY_JOB_GRACE")
    found = {}
    for owner, pod in of_component(objects, "workers"):
        given, container = environment(pod, objects), main_container(pod)
        image = container["image"].rpartition("/")[2].partition("@")[0]
        found[owner.rpartition("-")[2]] = (
            image, *(given.get(name) for name in variables_of), pod["spec"]["terminationGracePeriodSeconds"],
        )  # fmt: skip
    stock = f"tide-relay:{CHART_YAML['appVersion']}"
    assert found == {
        "forward": (stock, None, None, None, None, 45),
        "reverse": (stock, None, None, None, None, 45),
        "streams": (stock, None, None, None, None, 45),
        "maintenance": (stock, None, None, None, None, 45),
        "jobs": ("shop:42", "shop.jobs,shop.mail", "none", "100", "25s", 60),
        "reports": ("shop", "shop.reports", "reports", "4", "300s", 330),
        "http": (stock, "none", "hooks,partners", "100", "25s", 60),
    }


IMAGE = {"repository": "r/shop", "tag": "1", "digest": f"sha256:{'1' * 64}"}


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ({}, f"r/shop@{IMAGE['digest']}"),
        ({"tag": "2"}, "r/shop:2"),
        ({"digest": f"sha256:{'0' * 64}"}, f"r/shop@sha256:{'0' * 64}"),
        ({"repository": "r/mine"}, f"r/mine:{CHART_YAML['appVersion']}"),
    ],
)
def test_an_image_of_a_group_replaces_what_belongs_together(helm: Helm, own: dict[str, str], wanted: str) -> None:
    values = minimal(image=IMAGE, workers__groups__forward__image=own)
    of_forward = {owner: main_container(pod)["image"] for owner, pod in of_component(helm.rendered(values), "workers")}
    assert of_forward["Deployment tide-tide-relay-workers-forward"] == wanted
    assert of_forward["Deployment tide-tide-relay-workers-reverse"] == f"r/shop@{IMAGE['digest']}"


def test_a_group_for_jobs_without_any_is_refused(helm: Helm) -> None:
    with pytest.raises(Refused, match=r"workers\.groups\.jobs serves tide\.jobs.*set jobs\.modules"):
        helm.rendered(minimal(workers__groups__jobs__enabled=True))
    with pytest.raises(Refused, match=r"api\.admin\.existingSecret is given, and no key of it"):
        helm.rendered(minimal(api={"enabled": True, "admin": {"existingSecret": "tokens", "secretKey": ""}}))


def test_the_admin_api_is_behind_a_service_of_its_own_that_no_way_from_outside_leads_to(helm: Helm) -> None:
    values = merged(minimal(**JOBS), minimal(api={"service": {"type": "LoadBalancer"}, "ingress": {"enabled": True}}))
    objects = helm.rendered(values)
    services = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "Service")}
    behind = [name for name, spec in services.items() for port in spec["ports"] if port["targetPort"] == "admin"]
    assert behind == ["tide-tide-relay-api-admin"]
    assert services[behind[0]]["type"] == "ClusterIP" and len(services[behind[0]]["ports"]) == 1
    assert behind[0] not in str(of_kind(objects, "Ingress"))
    [policy] = [one for one in of_kind(objects, "NetworkPolicy") if one["metadata"]["name"] == "tide-tide-relay-api"]
    let_in = {rule["ports"][0]["port"]: rule.get("from") for rule in policy["spec"]["ingress"]}
    assert let_in == {8080: None, 9292: None, 8090: [{"podSelector": {}}]}


@pytest.mark.parametrize(
    ("wanted", "ports"),
    [
        ("scheduler", {"metrics": "metrics_addr"}),
        ("workers", {"metrics": "worker_metrics_addr"}),
        ("api", {"http": "api_addr", "metrics": "api_metrics_addr", "admin": "admin_addr"}),
    ],
)
def test_ports_are_those_of_the_settings(helm: Helm, wanted: str, ports: dict[str, str]) -> None:
    objects = helm.rendered(minimal(**JOBS))
    found = of_component(objects, wanted)
    assert found
    for owner, pod in found:
        given = environment(pod, objects)
        named = {port["name"]: port["containerPort"] for port in main_container(pod)["ports"]}
        assert named == {name: parse_address(given[variables(field)[0]])[1] for name, field in ports.items()}, owner
        default = {name: parse_address(Settings.model_fields[field].default)[1] for name, field in ports.items()}
        assert named == default, owner
        policies = [one["spec"] for one in of_kind(objects, "NetworkPolicy")
                    if one["metadata"]["name"] == owner.split()[1]]  # fmt: skip
        let_in = {port["port"] for rule in policies[0]["ingress"] for port in rule["ports"]}
        assert let_in == set(named.values()), owner


@each_ci_file
def test_probes_ask_what_the_programs_answer(helm: Helm, name: str) -> None:
    for owner, pod in pods(helm.rendered(ci_values(name))):
        if component(pod) in ("scheduler", "workers", "api"):
            container = main_container(pod)
            asked = {
                kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")
            }
            assert asked == {"startup": "/health", "liveness": "/health", "readiness": "/ready"}, owner


@each_ci_file
def test_workers_share_their_metrics_in_a_folder_of_the_pod(helm: Helm, name: str) -> None:
    for owner, pod in of_component(helm.rendered(ci_values(name)), "workers"):
        container = main_container(pod)
        folder = next(each["value"] for each in container["env"] if each["name"] == "PROMETHEUS_MULTIPROC_DIR")
        volume = next(each["name"] for each in container["volumeMounts"] if each["mountPath"] == folder)
        assert any(each["name"] == volume and "emptyDir" in each for each in pod["spec"]["volumes"]), owner


def test_an_autoscaler_asks_for_metrics_of_ours(helm: Helm) -> None:
    keda = minimal(**JOBS, workers__autoscaling={"kind": "keda", "keda": {"serverAddress": "http://prometheus"}})
    asked = set()
    for scaler in of_kind(helm.rendered(keda), "ScaledObject"):
        for trigger in scaler["spec"]["triggers"]:
            asked |= set(re.findall(r"tide_\w+", trigger["metadata"]["query"]))
            promql_parser.parse(trigger["metadata"]["query"])  # raises ValueError
    hpa = set()
    for scaler in of_kind(helm.rendered(minimal(**JOBS, workers__autoscaling__kind="hpa")), "HorizontalPodAutoscaler"):
        hpa |= {metric["external"]["metric"]["name"] for metric in scaler["spec"]["metrics"]}
    assert asked == hpa == {"tide_relay_lag_seconds", "tide_job_oldest_seconds", "tide_relay_drains_waiting"}


def test_a_group_for_jobs_is_scaled_on_the_wait_of_its_own_queues_only(helm: Helm) -> None:
    objects = helm.rendered(ci_values("jobs-values.yaml"))
    [keda] = of_kind(objects, "ScaledObject")
    queries = {trigger["name"]: trigger["metadata"]["query"] for trigger in keda["spec"]["triggers"]}
    assert set(queries) == {"jobs", "drains-waiting"} and keda["spec"]["minReplicaCount"] == 0
    assert queries["jobs"].startswith('max(tide_job_oldest_seconds{namespace="')
    [hpa] = of_kind(objects, "HorizontalPodAutoscaler")
    wait, drains = (metric["external"]["metric"]["selector"]["matchExpressions"] for metric in hpa["spec"]["metrics"])
    assert [each["values"] for each in (*wait, *drains)] == [["hooks", "partners"], ["tide.jobs"]]
