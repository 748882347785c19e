"""A program that is forked is what the same program is that was started, and ends as that does."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fleets.forked import SHOW_STACKS, Forked, can_be_forked, fork
from tests.fleets.proc import is_alive
from tests.paths import ROOT
from tests.waiting import wait_until

PROGRAM = "tests.fleets.shows_itself"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    ours = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path), "RELAY_WORKER_THREADS": "3"}
    stems = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    del stems["PATH"]
    return stems | ours


def forked(ending: str, environment: dict[str, str], log: Path) -> Forked:
    command = [sys.executable, "-m", PROGRAM, ending]
    assert can_be_forked(command, environment, ROOT)
    with log.open("wb") as output:
        return fork(command, environment, output)


def test_it_finds_what_a_started_one_finds(environment, tmp_path):
    started = subprocess.run(
        [sys.executable, "-m", PROGRAM, "0"], env=environment, cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, check=True, start_new_session=True,
    )  # fmt: skip
    assert forked("0", environment, tmp_path / "log").wait(30) == 0
    found, _ = json.loads((tmp_path / "log").read_text())
    assert found == json.loads(started.stdout)[0]
    assert found["temporary"] == str(tmp_path) and found["leads"] and not found["decided"]


def test_two_of_them_share_no_secret(environment, tmp_path):
    for name in ("one", "other"):
        forked("0", environment, tmp_path / name).wait(30)
    one, other = (json.loads((tmp_path / name).read_text())[1] for name in ("one", "other"))
    assert one != other


@pytest.mark.parametrize("code", [0, 1, 130])
def test_its_exit_code_is_seen(code, environment, tmp_path):
    program = forked(str(code), environment, tmp_path / "log")
    assert program.wait(30) == code
    assert program.poll() == code


def test_its_end_by_a_signal_is_seen(environment, tmp_path):
    log = tmp_path / "log"
    program = forked("never", environment, log)
    wait_until(log.read_text, 30, "it runs")
    assert program.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0.01)
    os.killpg(program.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(program.pid), 30, "it is gone")
    os.kill(program.pid, signal.SIGTERM)  # its number is its own until then
    assert program.wait(30) == -signal.SIGKILL


def test_it_shows_where_it_is_and_goes_on(environment, tmp_path):
    log = tmp_path / "log"
    program = forked("never", environment, log)
    wait_until(log.read_text, 30, "it runs")
    os.kill(program.pid, SHOW_STACKS)
    wait_until(lambda: "shows_itself.py" in log.read_text(), 30, "it says in which line it waits")
    assert program.poll() is None
    os.killpg(program.pid, signal.SIGKILL)
    assert program.wait(30) == -signal.SIGKILL


def test_what_is_run_otherwise_is_not_forked(environment, tmp_path):
    command = [sys.executable, "-m", PROGRAM]
    assert not can_be_forked([sys.executable, "-c", "pass"], environment, ROOT)
    assert not can_be_forked(command, environment | {"PYTHONHASHSEED": "1"}, ROOT)
    assert not can_be_forked(command, environment, tmp_path)
