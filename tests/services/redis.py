"""The servers that tests of Redis run on: that of the wheel, and current ones, which `make services-redis` unpacks."""

from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.services.unavailable import unavailable

EMBEDDED = "redis6"
FOLDER = ROOT / ".cache" / "redis-servers"
CURRENT = {"redis8": FOLDER / "redis-server", "valkey": FOLDER / "valkey-server"}


def program_of(name: str) -> Path | None:
    """None is the server of the wheel."""
    if name == EMBEDDED:
        return None
    if not CURRENT[name].exists():
        unavailable(f"{CURRENT[name].name} is not there (make services-redis)")
    return CURRENT[name]


def name_of(program: Path | None) -> str:
    return program.name if program else "embedded"


def run_on_each(metafunc: pytest.Metafunc, *names: str) -> None:
    """Runs a test that needs Redis on each of these servers."""
    if "redis_program" in metafunc.fixturenames:
        metafunc.parametrize("redis_program", names, indirect=True)
