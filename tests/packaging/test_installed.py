"""What a user gets with `pip install tide-relay`: an environment that knows nothing of the checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.test_wheel import CHECKOUT, wheel

__all__ = ["wheel"]

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("packaging")]


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of a new virtual environment into which the wheel was installed."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    python = str(home / "bin" / "python")
    install: list[Path | str]
    # uv, where the checkout has it, does the work of pip in a tenth of the time.
    if uv := next(CHECKOUT.glob(".cache/uv-*[0-9]/bin/uv"), None):
        make, install = [uv, "venv", "--python", sys.executable, home], [uv, "pip", "install", "--python", python]
    else:
        make, install = [sys.executable, "-m", "venv", home], [python, "-m", "pip", "install"]
    for step in (make, [*install, "--quiet", wheel]):
        done = subprocess.run([*map(str, step)], capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr
    return home / "bin"


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """The output of a command that must succeed, away from the settings of the user who runs the tests."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "PYTHON"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean | environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("package", ["relay", "workers", "scheduler"])
def test_the_packages_come_from_the_wheel(programs: Path, tmp_path: Path, package: str) -> None:
    where = run(programs / "python", "-W", "error", "-c", f"import {package}; print({package}.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(programs.parent)


@pytest.mark.parametrize("program", ["relay", "relay-scheduler"])
def test_the_commands_answer_without_a_checkout_or_any_extra(programs: Path, tmp_path: Path, program: str) -> None:
    assert "Example" in run(programs / program, "--help", cwd=tmp_path)


def test_the_schema_is_printed_from_the_wheel(programs: Path, tmp_path: Path) -> None:
    assert "create or replace function tide.outbox_publish(" in run(
        programs / "relay", "migrate", "--print", cwd=tmp_path
    )


@pytest.mark.parametrize("inside_the_checkout", [True, False])
def test_the_front_door_of_the_workers_opens(programs: Path, tmp_path: Path, inside_the_checkout: bool) -> None:
    """The dramatiq command puts the current folder first on the path: the checkout has packages of these names."""
    folder = Path(__file__).parents[2] if inside_the_checkout else tmp_path
    code = "import sys; sys.path.insert(0, '.'); import relay.workers, dramatiq; print(dramatiq.get_broker().actors)"
    printed = run(programs / "python", "-c", code, cwd=folder, RELAY_POSTGRES_URL="postgresql://nowhere.invalid/app")
    assert "drain" in printed


def test_a_backend_that_is_not_installed_names_its_extra(programs: Path, tmp_path: Path) -> None:
    code = (
        "from relay.pipelines.config import parse_forward\n"
        "from relay.errors import MissingExtra\n"
        "sink = parse_forward({'sink_type': 'nats', 'url': 'nats://localhost', 'stream': 'orders'}).make_sink('p')\n"
        "try:\n    sink.open()\nexcept MissingExtra as error:\n    print(error)\n"
    )
    assert "pip install 'tide-relay[nats]'" in run(programs / "python", "-c", code, cwd=tmp_path)
