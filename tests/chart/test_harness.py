"""The tests of the chart rest on a server that runs nothing: it must refuse what Kubernetes refuses."""

from pathlib import Path

import pytest

from tests.chart.api_server import ApiServer
from tests.chart.helm import Helm, Refused

pytestmark = [pytest.mark.xdist_group("chart"), pytest.mark.timeout(900)]

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  selector:
    matchLabels: {app: "{{ .Values.app }}"}
  template:
    metadata:
      labels: {app: "{{ .Values.app }}"}
    spec:
      containers: [{name: program, image: "{{ .Values.image }}"}]
"""
JOB = """
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}
  annotations: {helm.sh/hook: "pre-install,pre-upgrade", helm.sh/hook-delete-policy: before-hook-creation}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: program, image: "{{ .Values.image }}"}]
"""


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """A chart of one Deployment, and one job that goes before it."""
    folder = tmp_path / "small"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("{apiVersion: v2, name: small, version: 0.1.0}")
    (folder / "values.yaml").write_text("{app: one, image: first}")
    (folder / "templates" / "deployment.yaml").write_text(DEPLOYMENT)
    (folder / "templates" / "job.yaml").write_text(JOB)
    return folder


def test_what_is_installed_can_be_looked_at_upgraded_and_removed(helm: Helm, api: ApiServer, chart: Path) -> None:
    namespace = helm.new_namespace()
    installed = helm.install({}, namespace=namespace, chart=chart)
    assert [one["kind"] for one in installed] == ["Job", "Deployment"]
    upgraded = helm.upgrade({"image": "second"}, namespace=namespace, chart=chart)
    assert [one["spec"]["template"]["spec"]["containers"][0]["image"] for one in upgraded] == ["second", "second"]
    assert helm.history(namespace=namespace) == ["superseded", "deployed"]
    helm.uninstall(namespace=namespace)
    assert not [path for path in api.objects if f"/{namespace}/deployments/" in path]


def test_a_selector_cannot_be_changed(helm: Helm, chart: Path) -> None:
    namespace = helm.new_namespace()
    helm.install({}, namespace=namespace, chart=chart)
    with pytest.raises(Refused, match=r"spec\.selector: field is immutable"):
        helm.upgrade({"app": "other"}, namespace=namespace, chart=chart)


def test_what_another_release_owns_is_not_taken(helm: Helm, chart: Path) -> None:
    namespace = helm.new_namespace()
    helm.install({}, namespace=namespace, release="first", chart=chart)
    deployment = chart / "templates" / "deployment.yaml"
    deployment.write_text(deployment.read_text().replace("{{ .Release.Name }}", "first"))
    with pytest.raises(Refused, match="exists and cannot be imported"):
        helm.install({}, namespace=namespace, release="second", chart=chart)


def test_an_unknown_field_does_not_pass_as_valid(helm: Helm, chart: Path) -> None:
    deployment = helm.install({}, chart=chart)[-1]
    assert helm.validate([deployment], "1.30") == ([], set())
    deployment["spec"]["replica"] = 2
    problems, _ = helm.validate([deployment], "1.30")
    assert "replica" in problems[0]


def test_what_the_engine_remembers_of_a_cluster_lies_in_its_own_folder(helm: Helm, api: ApiServer, chart: Path) -> None:
    helm.install({}, chart=chart)
    port = api.url.rpartition(":")[2]
    assert [path.name for path in (helm.home / ".kube" / "cache" / "discovery").iterdir()] == [f"127.0.0.1_{port}"]
