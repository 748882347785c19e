"""Every pod passes the restricted pod security standard, one test for each of its rules, and some rules of ours."""

import pytest

from tests.chart.discovery import Object
from tests.chart.helm import Helm
from tests.chart.objects import Pod, containers, name_of, of_kind, pods
from tests.chart.values import CI_FILES, ci_values

pytestmark = [pytest.mark.xdist_group("chart"), pytest.mark.timeout(900)]

# Rule "Volume Types" of the standard.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


@pytest.fixture
def every_pod(helm: Helm) -> list[Pod]:
    """Of every file of ci/."""
    return [(f"{name}: {owner}", pod) for name in CI_FILES for owner, pod in pods(helm.rendered(ci_values(name)))]


@pytest.fixture
def every_container(every_pod: list[Pod]) -> list[tuple[str, Object, Object]]:
    """Where it is, the pod's security context, and the container, init containers too."""
    return [
        (f"{where}: {container['name']}", pod["spec"].get("securityContext", {}), container)
        for where, pod in every_pod
        for container in containers(pod)
    ]


def own(container: Object) -> Object:
    context: Object = container.get("securityContext", {})
    return context


def test_there_are_pods_of_every_component(every_pod: list[Pod]) -> None:
    components = {pod["metadata"]["labels"]["app.kubernetes.io/component"] for _, pod in every_pod}
    assert components >= {"scheduler", "workers", "api", "migrate"}


def test_none_shares_a_namespace_of_its_host(every_pod: list[Pod]) -> None:
    for where, pod in every_pod:
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod["spec"].keys(), where


def test_none_is_privileged(every_container: list[tuple[str, Object, Object]]) -> None:
    for where, _, container in every_container:
        assert not own(container).get("privileged", False), where


def test_none_may_escalate(every_container: list[tuple[str, Object, Object]]) -> None:
    for where, _, container in every_container:
        assert own(container).get("allowPrivilegeEscalation") is False, where


def test_all_capabilities_are_dropped(every_container: list[tuple[str, Object, Object]]) -> None:
    for where, _, container in every_container:
        capabilities = own(container).get("capabilities", {})
        assert capabilities.get("drop") == ["ALL"], where
        assert not capabilities.get("add"), where


def test_volumes_are_of_allowed_types(every_pod: list[Pod]) -> None:
    for where, pod in every_pod:
        for volume in pod["spec"].get("volumes", []):
            assert volume.keys() - {"name"} <= VOLUMES, f"{where}: {volume['name']}"


def test_none_takes_a_port_of_its_host(every_container: list[tuple[str, Object, Object]]) -> None:
    for where, _, container in every_container:
        assert not [port for port in container.get("ports", []) if port.get("hostPort")], where


def test_none_runs_as_root(every_container: list[tuple[str, Object, Object]]) -> None:
    for where, pod, container in every_container:
        both = {**pod, **own(container)}
        assert both.get("runAsNonRoot") is True, where
        assert both.get("runAsUser") != 0, where
        assert both.get("runAsGroup") != 0, where


def test_seccomp_is_on(every_container: list[tuple[str, Object, Object]]) -> None:
    for where, pod, container in every_container:
        profile = {**pod, **own(container)}.get("seccompProfile", {})
        assert profile.get("type") in ("RuntimeDefault", "Localhost"), where


def test_apparmor_selinux_proc_sysctls_and_windows_are_left_as_they_are(
    every_container: list[tuple[str, Object, Object]],
) -> None:
    loosening = {"appArmorProfile", "seLinuxOptions", "procMount", "sysctls", "windowsOptions"}
    for where, pod, container in every_container:
        assert not loosening & (pod.keys() | own(container).keys()), where


def test_probes_and_hooks_ask_nobody_but_their_pod(every_container: list[tuple[str, Object, Object]]) -> None:
    for where, _, container in every_container:
        asked = [container.get(probe, {}) for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
        for each in asked + list(container.get("lifecycle", {}).values()):
            assert not [kind for kind in ("httpGet", "tcpSocket") if "host" in each.get(kind, {})], where


def test_the_root_filesystem_is_read_only(every_container: list[tuple[str, Object, Object]]) -> None:
    for where, _, container in every_container:
        assert own(container).get("readOnlyRootFilesystem") is True, where


def test_no_token_of_the_kubernetes_api_is_mounted(every_pod: list[Pod], helm: Helm) -> None:
    for where, pod in every_pod:
        assert pod["spec"].get("automountServiceAccountToken") is False, where
    for name in CI_FILES:
        for account in of_kind(helm.rendered(ci_values(name)), "ServiceAccount"):
            assert account["automountServiceAccountToken"] is False, name_of(account)


def test_no_right_in_kubernetes_is_asked_for(helm: Helm) -> None:
    for name in CI_FILES:
        kinds = {one["kind"] for one in helm.rendered(ci_values(name))}
        assert not {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} & kinds, name


def test_memory_is_limited_and_requested(every_container: list[tuple[str, Object, Object]]) -> None:
    for where, _, container in every_container:
        if "tide-relay" in container["image"]:
            resources = container["resources"]
            assert resources["limits"]["memory"] and resources["requests"]["memory"], where
            assert resources["requests"]["cpu"], where


def test_folders_that_can_be_written_have_a_limit(every_pod: list[Pod]) -> None:
    for where, pod in every_pod:
        for volume in pod["spec"].get("volumes", []):
            if "emptyDir" in volume:
                assert volume["emptyDir"].get("sizeLimit"), f"{where}: {volume['name']}"
