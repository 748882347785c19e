"""The environment of the Helm engine: made once from requirements.txt, and kept in .cache until that file changes."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.services.unavailable import unavailable

_ROOT = Path(__file__).parents[2]
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def engine_python() -> Path:
    """The Python of the environment. Skips the test, or fails it in CI, where packages cannot be had."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(_REQUIREMENTS.read_bytes() + version.encode()).hexdigest()[:12]
    home = _ROOT / ".cache" / f"chart-{digest}"
    python = home / "bin" / "python"
    if not python.exists():
        _make(home)
    return python


def _make(home: Path) -> None:
    # Beside its place, so that an interrupted installation is never taken for a whole one. Only bin/python is used,
    # which does not mind that its folder is renamed.
    new = home.with_name(f"{home.name}.{os.getpid()}.new")
    shutil.rmtree(new, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(new))
    _run(
        str(new / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--no-compile",  # only a small part of it is ever imported
        # helm-sdkpy asks for 3.12 and works from 3.11 on: it is a library in Go and a thin front of plain Python.
        "--ignore-requires-python", "--requirement", str(_REQUIREMENTS),
    )  # fmt: skip
    try:
        new.rename(home)
    except OSError:
        shutil.rmtree(new)  # another run was quicker


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        unavailable(f"the Helm engine could not be installed: {done.stderr.strip()[-1000:]}")
