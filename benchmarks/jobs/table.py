"""The rows of the table: each is measured in turns, ours and each peer, and compared with each of them."""

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import httpx

from benchmarks.figures import Effort, Figure, at_least, in_turns, ratio, spread
from benchmarks.jobs import claims, held, pick_up
from benchmarks.jobs.systems import OTHERS, OURS, ROOT, Lines, Program, Progress, System, systems
from benchmarks.proc import family_cpu_seconds
from benchmarks.stack import Stack

ONE_BY_ONE = 2_000
IN_BULK = 40_000
BATCH = 1_000
REQUESTS = 16_000
PROCESSES = (1, 2)
HANDLERS_TARGET = 20_000.0
REFERENCE = 217.0
"""HTTP jobs a second of the system whose users come to ours, as it was measured on such a machine."""
INSTALL_SECONDS = 900.0
Cpu = dict[str, list[float]]
"""Microseconds for a job, by system."""


def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
    subprocess.run([str(ROOT / "benchmarks/jobs/peers/install")], check=True, timeout=INSTALL_SECONDS)
    for program in OTHERS:
        if reason := program.missing():
            yield Figure(program.name, "missing", note=reason)
    programs = [OURS, *(program for program in OTHERS if not program.missing())]
    yield from _enqueue(stack, effort, programs)
    yield from _handlers(stack, effort, programs)
    yield from _http(stack, effort, programs)
    yield from pick_up.run(stack, effort, programs)
    yield from claims.run(stack, effort, programs)
    yield from held.run(stack, effort, programs)


def beside(what: str, results: Mapping[str, Sequence[float]], cpu: Cpu | None = None) -> Iterator[Figure]:
    """Ours to each peer."""

    def said(name: str) -> str:
        more = f" with {statistics.median(cpu[name]):,.0f} µs of CPU for each" if cpu else ""
        return f"{name} {spread(results[name])}{more}"

    for name, values in results.items():
        if name != OURS.name:
            yield at_least(
                f"{what}: times {name}", ratio(results[OURS.name], values), 1.0, f"{said(OURS.name)}; {said(name)}"
            )


def _enqueue(stack: Stack, effort: Effort, programs: Sequence[Program]) -> Iterator[Figure]:
    with systems(stack, programs) as found:
        one, many = effort.count(ONE_BY_ONE), effort.count(IN_BULK)
        commands: dict[str, dict[str, str | int]] = {
            "enqueue one by one, each in a durable commit": {"do": "one", "count": one},
            f"enqueue {BATCH:,} in each durable commit": {"do": "many", "count": many, "size": BATCH},
        }
        for what, command in commands.items():
            cpu: Cpu = {name: [] for name in found}
            variants = {name: _asked(system, command, cpu[name]) for name, system in found.items()}
            in_turns(variants, 1)  # not counted: connections, plans, first pages
            for each in cpu.values():
                each.clear()
            yield from beside(what, in_turns(variants, effort.rounds), cpu)


def _asked(system: System, command: dict[str, str | int], cpu: list[float]) -> Callable[[], float]:
    count = int(command["count"])

    def measure() -> float:
        before = family_cpu_seconds(system.pids)
        seconds = system.ask(**command)
        cpu.append((family_cpu_seconds(system.pids) - before) / count * 1e6)
        return count / seconds

    return measure


def _handlers(stack: Stack, effort: Effort, programs: Sequence[Program]) -> Iterator[Figure]:
    rounds = _rounds_of_fleets(effort)
    with systems(stack, programs) as found:
        for processes in PROCESSES:
            what = f"handlers that do nothing, {processes} process{'es' * (processes > 1)}"
            cpu: Cpu = {name: [] for name in found}
            variants = {name: _worked(system, effort, processes, cpu[name]) for name, system in found.items()}
            results = in_turns(variants, rounds)
            ours = results[OURS.name]
            met = statistics.median(ours) >= HANDLERS_TARGET
            yield Figure(what, spread(ours), f"at least {HANDLERS_TARGET:,.0f}/s", met)
            yield from beside(what, results, cpu)


def _rounds_of_fleets(effort: Effort) -> int:
    """A quick run starts each fleet once: starts and stops take longer than the work."""
    return effort.rounds if effort.scale >= 1 else 1


def _worked(system: System, effort: Effort, processes: int, cpu: list[float]) -> Callable[[], float]:
    jobs = max(1_000, effort.count(system.program.backlog))

    def measure() -> float:
        system.fill(jobs)
        with system.working(processes) as counts:
            rate = Progress(system, jobs, counts).rate()
        cpu.append(rate.cpu_microseconds)
        return rate.per_second

    return measure


def _http(stack: Stack, effort: Effort, programs: Sequence[Program]) -> Iterator[Figure]:
    with systems(stack, programs) as found:
        cpu: Cpu = {name: [] for name in found}
        variants = {name: _posted(stack, system, effort, cpu[name]) for name, system in found.items()}
        results = in_turns(variants, _rounds_of_fleets(effort))
    times = ratio(results[OURS.name], [REFERENCE] * len(results[OURS.name]))
    yield at_least(f"HTTP jobs, 1 process / {REFERENCE:.0f} a second", times, 10.0, spread(results[OURS.name]))
    yield from beside("HTTP jobs, 1 process, 20 at a time", results, cpu)


def _posted(stack: Stack, system: System, effort: Effort, cpu: list[float]) -> Callable[[], float]:
    """The receiver counts the requests: our HTTP jobs have no handler that could."""
    rounds = iter(range(1_000))
    jobs = effort.count(min(REQUESTS, system.program.backlog))

    def measure() -> float:
        url = f"{stack.receiver}/{system.name.replace(' ', '-')}-{next(rounds)}"
        system.fill(jobs, url)
        with system.working(http=True) as counts, httpx.Client() as client:

            def received() -> Lines:
                return {"receiver": [(time.monotonic_ns(), int(client.get(url).text))]}

            rate = Progress(system, jobs, counts, received).rate()
        cpu.append(rate.cpu_microseconds)
        return rate.per_second

    return measure
