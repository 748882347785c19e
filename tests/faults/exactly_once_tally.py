"""Ids that arrived, counted against those that were sent."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple


class Ordered(NamedTuple):
    """Where order holds."""

    name: str
    sent: list[str]
    """Ids, in order."""
    arrived: list[str]
    """Ids, in order of arrival, each as often as it arrived."""


@dataclass
class Tally:
    """What became of the messages of one flow."""

    sent: int = 0
    arrived: int = 0
    missing: int = 0
    doubled: int = 0
    unknown: int = 0
    """Arrived, though never sent: rolled back, for example."""
    reordered: int = 0
    dead: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        return self.sent > 0 and not (self.missing or self.doubled or self.unknown or self.reordered or self.dead)

    def add(self, events: Ordered, in_order: bool = True) -> None:
        rank = {number: position for position, number in enumerate(events.sent)}
        times = Counter(events.arrived)
        missing = [number for number in events.sent if number not in times]
        doubled = [number for number, count in times.items() if count > 1]
        unknown = [number for number in times if number not in rank]
        first = [rank[number] for number in times if number in rank]
        late = [b for a, b in pairwise(first) if b < a and in_order]
        self.sent += len(events.sent)
        self.arrived += len(times)
        self.missing += len(missing)
        self.doubled += sum(times[number] - 1 for number in doubled)
        self.unknown += len(unknown)
        self.reordered += len(late)
        for what, which in (("missing", missing), ("doubled", doubled), ("unknown", unknown)):
            self.examples += [f"{events.name}: {what} {number}" for number in which[:5]]
        self.examples += [f"{events.name}: late {events.sent[position]}" for position in late[:5]]
