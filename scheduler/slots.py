"""The slots in which pipelines lie, and which of them a scheduler should hold. No I/O, so every choice can be tested.

A scheduler owns a pipeline by the advisory lock of its slot. PostgreSQL has room for some thousands of locks, however
many pipelines there are: few pipelines have a slot each, and many share one. See relay/operations/locks.py.
"""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import NamedTuple

from relay.operations.locks import Slot, slot_of
from scheduler.state import Spec


class Wanted(NamedTuple):
    """Slots to try, in this order, until they hold so many pipelines."""

    slots: list[Slot]
    weights: list[int]
    pipelines: int


class Slots:
    """Of the pipelines that this scheduler may own."""

    def __init__(self) -> None:
        self._slots: dict[str, Slot] = {}
        self._members: defaultdict[Slot, set[str]] = defaultdict(set)
        self.held: set[Slot] = set()

    def put(self, spec: Spec) -> None:
        """A pipeline that is new, or may name another group now."""
        slot = slot_of(spec.pipeline, spec.group)
        if self._slots.get(spec.name) != slot:
            self.remove(spec.name)
            self._slots[spec.name] = slot
            self._members[slot].add(spec.name)

    def remove(self, name: str) -> None:
        """A pipeline that this scheduler may not own any more."""
        if (slot := self._slots.pop(name, None)) is not None:
            self._members[slot].discard(name)
            if not self._members[slot]:
                del self._members[slot]

    def holds(self, name: str) -> bool:
        """Whether the lock of the pipeline's slot is ours."""
        return self._slots.get(name) in self.held

    def members(self, slot: Slot) -> Collection[str]:
        return self._members.get(slot, ())

    def empty(self) -> list[Slot]:
        """Those that it holds in which no pipeline lies any more."""
        return [slot for slot in self.held if slot not in self._members]

    def missing(self, owned: Collection[str]) -> list[str]:
        """The pipelines in the slots that it holds that are not owned yet."""
        return [name for slot in self.held for name in self.members(slot) if name not in owned]

    def surplus(self, schedulers: int, busy: Callable[[Collection[str]], int]) -> list[Slot]:
        """What to release above a fair share, the least busy first: `busy` counts the busy ones of some pipelines.

        No slot goes that would leave less than the share. A scheduler that has less takes a slot even if that is more
        than it lacks: else no one might. So each slot that moves makes the surplus of all together smaller, and the
        slots come to rest.
        """
        above = self._holding() - self._share(schedulers)
        light = [slot for slot in self.held if len(self.members(slot)) <= above]
        counts = {slot: busy(self.members(slot)) for slot in light}
        released = []
        for slot in sorted(light, key=counts.__getitem__):
            if len(self.members(slot)) <= above:
                above -= len(self.members(slot))
                released.append(slot)
        return released

    def wanted(self, schedulers: int) -> Wanted | None:
        """What to try to take, up to a fair share; None if it has that."""
        lacking = self._share(schedulers) - self._holding()
        others = [slot for slot in self._members if slot not in self.held]
        if lacking <= 0 or not others:
            return None
        random.shuffle(others)
        return Wanted(others, [len(self._members[slot]) for slot in others], lacking)

    def _share(self, schedulers: int) -> int:
        return math.ceil(len(self._slots) / max(1, schedulers))

    def _holding(self) -> int:
        return sum(len(self.members(slot)) for slot in self.held)
