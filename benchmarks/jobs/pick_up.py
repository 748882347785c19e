"""From the commit of a job to the first line of its handler. All fleets wait at once, and get a job in turns."""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from benchmarks.figures import Effort, Figure, below, percentile
from benchmarks.jobs.systems import OURS, Counts, Program, System, systems
from benchmarks.stack import Stack, wait_until

IDLE_JOBS, QUICK_IDLE_JOBS, WARM_JOBS = 20, 4, 400
# One job for each system in a turn of so long: longer than ours listens to a queue after its last job, so that all the
# way is measured: bell, scheduler, broker, worker.
IDLE_SECONDS = 11.0
PAUSES_SECONDS = (0.02, 0.12)
LIMIT_SECONDS = 60.0
LOOK_SECONDS = 0.004


def run(stack: Stack, effort: Effort, programs: Sequence[Program]) -> Iterator[Figure]:
    with systems(stack, programs) as found, ExitStack() as working:
        fleets = {name: (system, working.enter_context(system.working())) for name, system in found.items()}
        numbers = iter(range(10**9))
        for _ in range(5):  # not counted
            _turn(fleets, numbers)
        idle_jobs = IDLE_JOBS if effort.scale >= 1 else QUICK_IDLE_JOBS
        idle = _measured(fleets, numbers, idle_jobs, IDLE_SECONDS)
        warm = _measured(fleets, numbers, effort.count(WARM_JOBS), 0.0)
    yield from _compared("pick-up by an idle fleet", idle, 10.0)
    yield from _compared("pick-up by a warm fleet", warm, 5.0)


def _measured(
    fleets: dict[str, tuple[System, Counts]], numbers: Iterator[int], jobs: int, turn_seconds: float
) -> dict[str, list[float]]:
    """Milliseconds."""
    results: dict[str, list[float]] = {name: [] for name in fleets}
    for _ in range(jobs):
        until = time.monotonic() + turn_seconds
        for name, milliseconds in _turn(fleets, numbers).items():
            results[name].append(milliseconds)
        time.sleep(max(0.0, until - time.monotonic()))
    return results


def _turn(fleets: dict[str, tuple[System, Counts]], numbers: Iterator[int]) -> dict[str, float]:
    found = {}
    for name, (system, counts) in fleets.items():
        time.sleep(random.uniform(*PAUSES_SECONDS))
        number = next(numbers)
        committed = system.ask(do="pick-up", number=number)
        wait_until(
            lambda counts=counts, number=number: number in counts.picked(),  # type: ignore[misc]
            f"{name}: job {number} begun", LIMIT_SECONDS, LOOK_SECONDS,
        )  # fmt: skip
        found[name] = (counts.picked()[number] - committed) / 1e6
    return found


def _compared(what: str, results: dict[str, list[float]], target_ms: float) -> Iterator[Figure]:
    ours = results[OURS.name]
    yield below(f"{what}, p50", percentile(ours, 50), target_ms, "ms", f"largest {max(ours):.1f} ms, {len(ours)} jobs")
    for percent in (50, 99):
        for name, values in results.items():
            if name != OURS.name:
                mine, theirs = percentile(ours, percent), percentile(values, percent)
                yield Figure(
                    f"{what}, p{percent}: {name} / ours", f"{theirs / mine:.2f}", "at least 1", theirs >= mine,
                    f"ours {mine:.1f} ms, {name} {theirs:.1f} ms",
                )  # fmt: skip
