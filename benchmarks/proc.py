"""CPU time and memory of processes, from /proc (see proc_pid_stat(5))."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process, to the nanosecond; 0 for one that has gone."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total / 1e9


def reaped_seconds(pid: int) -> float:
    """CPU time of the children of a process that have ended and were waited for."""
    user, system = _stat(pid)[13:15]
    return (int(user) + int(system)) / _TICKS_PER_SECOND


def children(pid: int) -> Iterator[int]:
    """The processes below a process, at every depth."""
    below: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            below.setdefault(int(_stat(int(path.name))[1]), []).append(int(path.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = below.get(pid, [])
    while found:
        yield from found
        found = [each for parent in found for each in below.get(parent, ())]


def family_cpu_seconds(pids: Iterable[int]) -> float:
    """Of these processes and all below them, as long as none ends meanwhile."""
    return sum(cpu_seconds(member) for pid in pids for member in (pid, *children(pid)))


def memory_mb(pid: int, field: str = "VmRSS") -> float:
    """`VmRSS` now or `VmHWM` at its highest, in MB of a million bytes; 0 for a process that has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{field}:")), 0.0)


def _stat(pid: int) -> list[str]:
    """The fields after the name, which may itself hold spaces and brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
