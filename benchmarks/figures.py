"""What a benchmark yields, and the little arithmetic behind it."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the results."""

    what: str
    measured: str
    target: str = ""
    met: bool | None = None
    """None where there is no target."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    rounds: int
    seconds: float
    """Of one round of one variant."""
    scale: float
    """Of backlogs and samples, against those of a full run."""

    def count(self, full: int) -> int:
        return max(1, int(full * self.scale))


# All benchmarks take about an hour so: a third round tells a bad one from a good one, and more buy nothing else.
FULL = Effort(rounds=3, seconds=3.0, scale=1.0)
QUICK = Effort(rounds=2, seconds=1.5, scale=0.25)


def in_turns(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measures A B C, A B C ...; gives the results of each variant in the order of the rounds."""
    results: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, measure in variants.items():
            results[name].append(measure())
    return results


def ratio(ours: Sequence[float], floor: Sequence[float]) -> float:
    """The median over the rounds of ours to the floor of the same round."""
    return statistics.median(a / b for a, b in zip(ours, floor, strict=True))


def spread(values: Sequence[float], unit: str = "/s") -> str:
    """Median and range, for people."""
    return f"{statistics.median(values):,.0f}{unit} ({min(values):,.0f} to {max(values):,.0f})"


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def at_least(what: str, value: float, target: float, note: str = "") -> Figure:
    return Figure(what, f"{value:.2f}", f"at least {target:g}", value >= target, note)


def below(what: str, value: float, target: float, unit: str, note: str = "") -> Figure:
    return Figure(what, f"{value:.3g} {unit}", f"below {target:g} {unit}", value < target, note)
