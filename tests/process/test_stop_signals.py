"""What signals do to a process that stops on them: the first lets it clean up, the second does not wait for that."""

import signal
import subprocess
import sys

import pytest

CHILD = """
import os, sys
from relay.process.stop import Stop
with Stop() as stop:
    stop.on_signals()
    print("ready", flush=True)
    stop.wait(timeout_seconds=30)
    print("stopping on", stop.signal_number, flush=True)
    if sys.argv[1] == "stuck":
        while True:
            pass
    print("cleaned up", flush=True)
"""


def start_child(kind: str) -> "subprocess.Popen[str]":
    child = subprocess.Popen([sys.executable, "-c", CHILD, kind], stdout=subprocess.PIPE, text=True)
    assert line_of(child) == "ready"
    return child


def line_of(child: "subprocess.Popen[str]") -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def finish(child: "subprocess.Popen[str]") -> int:
    assert child.stdout is not None
    try:
        return child.wait(timeout=10)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_the_process_clean_up(number: signal.Signals) -> None:
    child = start_child("tidy")
    child.send_signal(number)
    assert line_of(child) == f"stopping on {int(number)}"
    assert line_of(child) == "cleaned up"
    assert finish(child) == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_signal_ends_the_process_at_once(number: signal.Signals, status: int) -> None:
    child = start_child("stuck")
    child.send_signal(signal.SIGTERM)
    assert line_of(child) == f"stopping on {int(signal.SIGTERM)}"
    child.send_signal(number)
    assert finish(child) == status
