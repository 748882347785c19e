"""Helm likes the chart, with the values of each file in its folder ci/."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.chart.helm import Helm
from tests.chart.objects import names
from tests.chart.values import CHART, CI_FILES, ci_values, write_with_values

pytestmark = [pytest.mark.xdist_group("chart"), pytest.mark.timeout(900)]
with_helm = pytest.mark.skipif(not shutil.which("helm"), reason="no helm on the PATH; the engine alone has to do")


def helm_program(*arguments: str | Path) -> str:
    done = subprocess.run(["helm", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_are_values_to_try() -> None:
    assert len(CI_FILES) > 5


@pytest.mark.parametrize("name", CI_FILES)
def test_lint_finds_nothing(helm: Helm, tmp_path: Path, name: str) -> None:
    assert helm.lint(write_with_values(CHART, tmp_path / "tide-relay", ci_values(name))) == []


def test_lint_finds_a_template_that_is_broken(helm: Helm, tmp_path: Path) -> None:
    chart = write_with_values(CHART, tmp_path / "tide-relay", ci_values(CI_FILES[0]))
    (chart / "templates" / "broken.yaml").write_text("a: {{ .Values.nothing.here }}")
    assert any(message.startswith("error") for message in helm.lint(chart))


def test_the_package_is_small_enough_for_the_secret_of_a_release(helm: Helm, tmp_path: Path) -> None:
    # Kubernetes takes 1 MiB, and Helm keeps chart, values and manifests in it, compressed and in base64.
    assert helm.package(tmp_path).stat().st_size < 300_000


@with_helm
@pytest.mark.parametrize("name", CI_FILES)
def test_the_program_helm_lints_it_too(name: str) -> None:
    helm_program("lint", "--strict", CHART, "--values", CHART / "ci" / name)


@with_helm
@pytest.mark.parametrize("name", CI_FILES)
def test_the_program_helm_renders_the_same_objects(helm: Helm, name: str) -> None:
    options: list[str | Path] = ["--values", CHART / "ci" / name, "--api-versions", "monitoring.coreos.com/v1"]
    rendered = yaml.safe_load_all(helm_program("template", "tide", CHART, *options))
    assert names([one for one in rendered if one]) == names(helm.rendered(ci_values(name)))
