"""What our Dockerfile must keep to, read off it. What it builds is tried in test_image.py."""

import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from relay.settings import Settings, variables
from tests.packaging import dockerfile, image_build
from tests.packaging.dockerfile import CHECKOUT, Dockerfile
from tests.services.unavailable import unavailable

# The package index may be slow.
pytestmark = pytest.mark.timeout(400)

# pyarrow is large, so it is asked for by name; the others are for development.
NOT_IN_THE_IMAGE = {"parquet", "embedded", "all", "dev"}


@pytest.fixture(scope="module")
def ours() -> Dockerfile:
    return dockerfile.read()


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        unavailable("no hadolint for this platform")
    done = subprocess.run(
        [program, "Dockerfile"], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_what_it_stands_on_is_pinned_and_can_be_pinned_by_digest(ours: Dockerfile) -> None:
    assert set(ours.arguments) == {"PYTHON_IMAGE", "UV_IMAGE"}
    bases = [stage.base for stage in ours.stages]
    assert set(bases) == set(ours.arguments.values())
    for base in bases:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?", base), base


def test_the_builder_and_the_image_have_the_same_python(ours: Dockerfile) -> None:
    assert ours.stage("builder").base == ours.final.base == ours.arguments["PYTHON_IMAGE"]


def test_uv_is_the_one_that_we_develop_with(ours: Dockerfile) -> None:
    (version,) = re.findall(r"^UV_VERSION := (.+)$", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    assert ours.arguments["UV_IMAGE"] == image_build.UV_IMAGE + version


def test_every_backend_is_in_it(ours: Dockerfile) -> None:
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    arguments: dict[str, str] = {}
    for step in ours.stage("builder").of("ARG"):
        arguments |= step.pairs({})
    given = {word.removeprefix("--extra=") for word in arguments["EXTRAS"].split()}
    assert given == extras.keys() - NOT_IN_THE_IMAGE
    assert arguments["MORE_EXTRAS"] == ""


def test_the_libraries_are_those_of_the_lock_and_none_for_development(ours: Dockerfile) -> None:
    syncs = [step.text for step in ours.stage("builder").of("RUN")]
    for sync in syncs:
        assert {"--frozen", "--no-dev", "--no-editable", "${EXTRAS}", "${MORE_EXTRAS}"} <= set(sync.split()), sync
    assert "UV_COMPILE_BYTECODE=1" in ours.stage("builder").last("ENV").words


def test_what_builds_our_wheel_is_pinned_to_the_versions_of_the_lock() -> None:
    """Whatever hatchling needs, too. uv takes them from here: the lock is of what the wheel needs."""
    locked = {one["name"]: one for one in tomllib.loads((CHECKOUT / "uv.lock").read_text())["package"]}
    needed, open_ends = set(), ["hatchling"]
    while open_ends:
        name = open_ends.pop()
        needed.add(name)
        open_ends += [each["name"] for each in locked[name].get("dependencies", []) if each["name"] not in needed]
    pinned = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["uv"]["build-constraint-dependencies"]
    assert pinned == [f"{name}=={locked[name]['version']}" for name in sorted(needed)]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_no_library_needs_a_compiler_for_the_python_of_the_image(
    ours: Dockerfile, tmp_path: Path, machine: str
) -> None:
    """The other tests have the Python of this machine."""
    (version,) = re.findall(r":(\d+\.\d+)", ours.arguments["PYTHON_IMAGE"])
    listed = tmp_path / "requirements.txt"
    extras = [step.pairs({})["EXTRAS"] for step in ours.stage("builder").of("ARG") if step.text.startswith("EXTRAS")]
    frozen = ["export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--extra=parquet", *extras[0].split()]
    uv(*frozen, "--output-file", str(listed))
    target = [
        "--target",
        str(tmp_path),
        "--python-version",
        version,
        "--python-platform",
        f"{machine}-unknown-linux-gnu",
    ]
    # nkeys comes as a source of plain Python alone.
    wheels = ["--only-binary", ":all:", "--no-binary", "nkeys"]
    assert "Would install" in uv("pip", "install", "--dry-run", *target, *wheels, "--requirements", str(listed))


def test_the_last_stage_runs_nothing_and_takes_only_what_was_built(ours: Dockerfile) -> None:
    """So it has no compiler, no package manager of ours, and no cache, but for what the base image has."""
    assert ours.final.of("RUN") == []
    assert [(step.flags.get("from"), step.words) for step in ours.final.of("COPY")] == [
        ("builder", ["/app/.venv", "/app/.venv"]),
        (None, ["deploy/image/healthcheck.py", "/app/"]),
    ]


def test_it_runs_as_nobody_in_particular(ours: Dockerfile) -> None:
    """A number, because Kubernetes cannot tell from a name that it is not root."""
    assert [step.text for step in ours.final.of("USER")] == ["65532:65532"]
    assert not any("chown" in step.flags for step in ours.final.of("COPY"))


def test_it_is_stopped_as_our_programs_are(ours: Dockerfile) -> None:
    assert ours.final.last("STOPSIGNAL").text == "SIGTERM"


def test_no_shell_stands_before_a_program(ours: Dockerfile) -> None:
    """A shell would keep SIGTERM to itself."""
    assert ours.final.of("ENTRYPOINT") == []
    assert ours.final.last("CMD").words == ["relay", "--help"]
    assert ours.final.last("HEALTHCHECK").words[0] == "CMD"


@pytest.mark.parametrize("kind", ["ARG", "ENV", "LABEL"])
def test_no_secret_is_baked_in(ours: Dockerfile, kind: str) -> None:
    words = " ".join(step.text for stage in ours.stages for step in stage.of(kind))
    assert not re.search(r"(?i)pass|secret|token|credential|_key|postgres(ql)?://|RELAY_", words)


def test_it_says_what_it_is_and_of_which_commit(ours: Dockerfile) -> None:
    given = {"VERSION": "1.2.3", "REVISION": "abc", "CREATED": "2026-01-01T00:00:00Z"}
    assert {name for step in ours.final.of("ARG") for name in step.pairs({})} == set(given)
    labels = ours.final.last("LABEL").pairs(given)
    prefix = "org.opencontainers.image."
    assert {labels[prefix + name] for name in ("version", "revision", "created")} == set(given.values())
    assert labels[prefix + "licenses"] == "Apache-2.0"


def test_the_ports_are_those_of_the_settings(ours: Dockerfile) -> None:
    fields = ("metrics_addr", "worker_metrics_addr", "api_addr", "api_metrics_addr", "admin_addr")
    assert ours.final.last("EXPOSE").words == [_default(field).rpartition(":")[2] for field in fields]


def test_health_is_asked_where_the_programs_answer() -> None:
    script = runpy.run_path(str(CHECKOUT / "deploy" / "image" / "healthcheck.py"))
    fields = ("metrics_addr", "worker_metrics_addr", "api_metrics_addr")
    assert script["DEFAULTS"] == {variables(field)[0].removeprefix("RELAY_"): _default(field) for field in fields}
    local = script["local"]
    assert [local(address) for address in ("0.0.0.0:1", ":2", "[::]:3", "[::1]:4", "relay:5")] == [
        ("127.0.0.1", 1), ("127.0.0.1", 2), ("::1", 3), ("::1", 4), ("relay", 5),
    ]  # fmt: skip


def test_nothing_goes_into_the_build_but_what_it_needs(tmp_path: Path) -> None:
    sent = {path.relative_to(tmp_path) for path in image_build.make_context(tmp_path).rglob("*") if path.is_file()}
    files = {"LICENSE", "README.md", "pyproject.toml", "uv.lock", "deploy/image/healthcheck.py"}
    assert {path.as_posix() for path in sent if path.parts[0] not in {"relay", "scheduler", "workers"}} == files
    assert not any(path.suffix == ".pyc" or path.parent.name == "__pycache__" for path in sent)


def uv(*arguments: str) -> str:
    """What it says, without the settings of the user who runs the tests."""
    clean = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT")}
    command = [str(image_build.uv_program()), *arguments]
    if arguments[0] == "pip":
        command += ["--python", sys.executable]
    done = subprocess.run(command, cwd=CHECKOUT, env=clean, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def _default(field: str) -> str:
    return str(Settings.model_fields[field].default)
