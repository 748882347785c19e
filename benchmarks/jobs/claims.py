"""The claim, while many jobs wait: of ours and of each peer that has one to call, in turns. All are durable here.

Engines of ours do not wait for the disk where a queue has no limit.
"""

import statistics
from collections.abc import Iterator, Sequence

from benchmarks.figures import Effort, Figure, in_turns
from benchmarks.jobs.systems import OURS, Program, System, systems
from benchmarks.stack import Stack

BACKLOGS = (100_000, 1_000_000)
WANTED = (1, 100, 500)
TIMES = 12


def run(stack: Stack, effort: Effort, programs: Sequence[Program]) -> Iterator[Figure]:
    """A quick run leaves out the largest backlog, which takes a minute to fill."""
    for program in programs:
        if not program.claims:
            yield Figure(f"claim: {program.name}", "missing", note="its claim is a part of its workers")
    with systems(stack, [program for program in programs if program.claims]) as found:
        filled = 0
        for backlog in BACKLOGS if effort.scale >= 1 else BACKLOGS[:1]:
            for system in found.values():
                system.fill(backlog - filled)
            filled = backlog
            for want in WANTED:
                yield from _compared(found, want, backlog, effort)


def _compared(found: dict[str, System], want: int, backlog: int, effort: Effort) -> Iterator[Figure]:
    variants = {
        name: lambda system=system: system.ask(do="claim", want=want, times=TIMES)
        for name, system in found.items()
        if want in system.program.claims
    }
    in_turns(variants, 1)  # not counted: plans
    results = in_turns(variants, effort.rounds)
    ours = results.pop(OURS.name)
    what = f"claim of {want} with {backlog:,} waiting"
    yield Figure(f"{what}, p50", f"{statistics.median(ours):.1f} ms", note=f"largest {max(ours):.1f} ms")
    for name, theirs in results.items():
        times = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        note = f"ours {statistics.median(ours):.1f} ms, {name} {statistics.median(theirs):.1f} ms"
        yield Figure(f"{what}: {name} / ours", f"{times:.2f}", "at least 1", times >= 1, note)
