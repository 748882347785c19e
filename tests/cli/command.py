"""Running the command `relay` as people do: its console script, in a folder and an environment of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from tests.paths import REACH

RELAY = Path(sys.executable).parent / "relay"


def environment(**ours: str) -> dict[str, str]:
    """Our variables, without the settings of the user who runs the tests."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "PGTRICKLE_RELAY_"))}
    return clean | REACH | {"COLUMNS": "200"} | ours


def run(*arguments: "str | Path", cwd: Path, timeout_seconds: float = 60, **options: Any) -> Any:
    """The verb as a process, with its output as text."""
    options.setdefault("env", environment())
    return subprocess.run(
        [str(RELAY), *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
        timeout=timeout_seconds, check=False, **options,
    )  # fmt: skip


def start(*arguments: "str | Path", cwd: Path, **options: Any) -> "subprocess.Popen[str]":
    """The verb as a process that goes on. Its standard error goes where its output goes."""
    options.setdefault("env", environment())
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.STDOUT)
    return subprocess.Popen([str(RELAY), *map(str, arguments)], cwd=cwd, text=True, start_new_session=True, **options)


def invoke(*arguments: "str | Path", url: str | None = None, stdin: "str | bytes" = "", **variables: str) -> Result:
    """The verb in this process: for what needs no process of its own. A bug in it is raised."""
    from relay.cli import main

    given = environment(**variables) | ({"RELAY_POSTGRES_URL": url} if url else {})
    hidden = {name: None for name in os.environ if name not in given}
    return CliRunner().invoke(
        main, [*map(str, arguments)], input=stdin, env={**hidden, **given}, catch_exceptions=False
    )
