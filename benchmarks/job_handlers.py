"""Handlers of the jobs that are measured."""

import os
import time

from relay.jobs import job

BEGUN = os.environ.get("BENCH_JOBS_BEGUN", "/dev/null")


@job(queue="bench")
async def nothing(n: int = 0) -> None:
    """What is measured is all that is around it."""


@job(queue="bench-latency")
async def begin(n: int) -> None:
    with open(BEGUN, "a", buffering=1) as file:  # noqa: ASYNC230  a line of a file in memory
        file.write(f"{n} {time.monotonic_ns()}\n")
