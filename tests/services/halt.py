"""Halting processes for a while: a server that is there, and does not move."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.waiting import wait_until

_HALTED_OR_ENDED = {"T", "t", "Z", "X"}


@contextlib.contextmanager
def halted(*pids: int | None) -> Iterator[None]:
    """For the length of the context the processes do nothing at all. They may be killed meanwhile.

    A signal is only sent when `os.kill` returns: on a busy machine threads of the process still run then, and may
    answer. So each is waited for, where /proc shows them.
    """
    assert None not in pids, "no such server is running"
    found = [pid for pid in pids if pid is not None]
    try:
        for pid in found:
            _tell(pid, signal.SIGSTOP)
        for pid in found:
            wait_until(lambda: _is_halted(pid), what=f"every thread of process {pid} is halted")  # noqa: B023
        yield
    finally:
        for pid in reversed(found):
            _tell(pid, signal.SIGCONT)


def _tell(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_halted(pid: int) -> bool:
    return all(_state(stat) in _HALTED_OR_ENDED for stat in Path(f"/proc/{pid}/task").glob("*/stat"))


def _state(stat: Path) -> str:
    try:
        # The name before it, in brackets, may hold anything.
        return stat.read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"
