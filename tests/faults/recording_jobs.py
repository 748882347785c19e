"""Handlers that write down when they begin and end, and what a log of that says about limits.

Each run is a line at its begin and one at its end, appended to the file of TIDE_TEST_RUNS. A run whose process was
killed has no end: the kill is its end.
"""

import asyncio
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from relay.jobs import Context, Retry, job

RUNS_VARIABLE = "TIDE_TEST_RUNS"


def _write(context: Context, what: str, key: str) -> None:
    line = {"what": what, "job": context.id, "attempt": context.attempt, "queue": context.queue, "key": key,
            "pid": os.getpid(), "at": time.monotonic_ns()}  # fmt: skip
    fd = os.open(os.environ[RUNS_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, json.dumps(line).encode() + b"\n")
    finally:
        os.close(fd)


@job(name="recorded")
async def recorded(context: Context, seconds: float = 0.0, key: str = "", failures: int = 0) -> None:
    _write(context, "begin", key)
    try:
        await asyncio.sleep(seconds)
        if context.attempt <= failures:
            raise Retry(0.05, "as the test wants")
    finally:
        _write(context, "end", key)


@job(name="recorded_function")
def recorded_function(context: Context, seconds: float = 0.0, key: str = "") -> None:
    _write(context, "begin", key)
    context.cancelled.wait(seconds)
    _write(context, "end", key)


@dataclass(frozen=True, slots=True)
class Run:
    job: str
    attempt: int
    queue: str
    key: str
    pid: int
    began: int
    """Nanoseconds of the monotonic clock, which all processes of a machine share."""
    ended: int
    finished: bool
    """Whether the handler came to its end."""


def read_runs(path: Path, kills: Mapping[int, int]) -> list[Run]:
    """`kills`: when each process was killed."""
    begun: dict[tuple[str, int, int], dict[str, object]] = {}
    runs: list[Run] = []
    for text in path.read_text().splitlines() if path.exists() else []:
        line = json.loads(text)
        key = (line["job"], line["attempt"], line["pid"])
        if line["what"] == "begin":
            begun[key] = line
        elif (began := begun.pop(key, None)) is not None:
            runs.append(_run(began, line["at"], finished=True))
    runs += [
        _run(began, kills.get(int(str(began["pid"])), time.monotonic_ns()), finished=False) for began in begun.values()
    ]
    return runs


def _run(began: Mapping[str, object], ended: int, *, finished: bool) -> Run:
    return Run(
        str(began["job"]), int(str(began["attempt"])), str(began["queue"]), str(began["key"]), int(str(began["pid"])),
        int(str(began["at"])), ended, finished,
    )  # fmt: skip


def most_at_once(runs: Sequence[Run]) -> int:
    """How many of them ran at the same time."""
    moments = sorted(
        [(run.began, 1) for run in runs] + [(run.ended, -1) for run in runs], key=lambda each: (each[0], each[1])
    )
    running = most = 0
    for _, change in moments:
        running += change
        most = max(most, running)
    return most


def most_of_a_key(runs: Iterable[Run]) -> Counter[str]:
    """For each key, how many of its runs were at the same time."""
    by_key: defaultdict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_key[run.key].append(run)
    return Counter({key: most_at_once(of_key) for key, of_key in by_key.items() if key})
