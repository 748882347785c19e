"""The wheel holds what it must, and nothing that belongs to the checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True, timeout=60)
    (made,) = folder.glob("tide_relay-*.whl")
    return made


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize("package", ["relay", "workers", "scheduler"])
def test_every_file_of_a_package_is_in_the_wheel(names: set[str], package: str) -> None:
    files = [path for path in (CHECKOUT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert f"{package}/py.typed" in names
    assert {path.relative_to(CHECKOUT).as_posix() for path in files} <= names


def test_the_migrations_are_in_the_wheel(names: set[str]) -> None:
    assert any(name.startswith("relay/sql/migrations/0001_") and name.endswith(".sql") for name in names)
    assert {"relay/sql/functions/order.txt", "relay/sql/functions/publish.sql"} <= names


def test_nothing_else_is_in_the_wheel(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"relay", "workers", "scheduler"}


def test_the_wheel_carries_its_licence_and_commands(wheel: Path, names: set[str]) -> None:
    (licence,) = (name for name in names if name.endswith("licenses/LICENSE"))
    (commands,) = (name for name in names if name.endswith("entry_points.txt"))
    with zipfile.ZipFile(wheel) as archive:
        assert b"Apache License" in archive.read(licence)
        assert {line.split(" = ")[0] for line in archive.read(commands).decode().splitlines() if " = " in line} == {
            "relay",
            "relay-scheduler",
        }
