"""Which slots a scheduler takes and releases, among few pipelines and many: no database is needed to see it."""

import random
from collections import Counter

import pytest

from relay.operations.locks import SLOTS, Slot, lock_key, slot_of
from relay.process.metrics import PipelineLabels
from scheduler.slots import Slots
from scheduler.state import Spec


def spec(name: str, group: str = "") -> Spec:
    return Spec(name, "orders", 1, 1000, 1.0, PipelineLabels(name, "forward", "memory"), group)


class Fleet:
    """Schedulers, and who has which lock."""

    def __init__(self, pipelines: int, schedulers: int) -> None:
        self.specs = [spec(f"pipeline{number}") for number in range(pipelines)]
        self.locks: dict[Slot, Slots] = {}
        self.members = [Slots() for _ in range(schedulers)]
        for one in self.members:
            for each in self.specs:
                one.put(each)

    def share(self) -> int:
        """Each shares once, in any order. How many slots moved."""
        moved = 0
        for one in random.sample(self.members, len(self.members)):
            released = one.surplus(len(self.members), lambda _: 0)
            for slot in released:
                one.held.discard(slot)
                del self.locks[slot]
            moved += len(released)
            if not released and (wanted := one.wanted(len(self.members))):
                have = 0
                for slot, weight in zip(wanted.slots, wanted.weights, strict=True):
                    if have < wanted.pipelines and slot not in self.locks:
                        self.locks[slot] = one
                        one.held.add(slot)
                        have += weight
                        moved += 1
        return moved

    def settle(self) -> None:
        for _ in range(100):
            if not self.share():
                return
        raise AssertionError("slots move without an end")

    def shares(self) -> list[int]:
        return [sum(len(one.members(slot)) for slot in one.held) for one in self.members]

    def join(self) -> None:
        self.members.append(Slots())
        for each in self.specs:
            self.members[-1].put(each)

    def die(self) -> None:
        gone = self.members.pop()
        self.locks = {slot: one for slot, one in self.locks.items() if one is not gone}


@pytest.mark.parametrize("pipelines", [1, 2, 9, 100, 600])
def test_schedulers_share_take_over_and_come_to_rest(pipelines):
    for seed in range(5):
        random.seed(seed)
        fleet = Fleet(pipelines, 1)
        heaviest = max(Counter(slot_of(each.name, "") for each in fleet.specs).values())
        for change in ("", "join", "join", "die", "join", "join", "die", "die"):
            if change:
                getattr(fleet, change)()
            fleet.settle()
            shares = fleet.shares()
            assert sum(shares) == pipelines, "each pipeline has an owner"
            assert max(shares) < pipelines / len(shares) + 1 + heaviest, "a fair share, but for one slot"


def test_the_number_of_locks_is_bounded_and_few_pipelines_have_a_slot_each():
    many = {lock_key(slot_of(f"pipeline{number}", "")) for number in range(10_000)}
    assert len(many) == SLOTS
    assert len({slot_of(f"pipeline{number}", "") for number in range(9)}) == 9


def test_groups_do_not_contend_for_a_slot():
    assert lock_key(slot_of("a", "blue")) != lock_key(slot_of("a", "green")) != lock_key(slot_of("a", ""))


def test_busy_slots_are_released_last():
    slots = Slots()
    for name in "abcd":
        slots.put(spec(name))
        slots.held.add(slot_of(name, ""))
    busy = {"a", "b", "d"}
    released = slots.surplus(2, lambda names: len(busy & set(names)))
    assert released[0] == slot_of("c", "") and len(released) == 2


def test_two_in_one_slot_stay_together_though_each_of_two_schedulers_should_have_one():
    slots = Slots()
    names = [name for name in map(str, range(2000)) if slot_of(name, "") == slot_of("0", "")][:2]
    for name in names:
        slots.put(spec(name))
    [slot] = slots.wanted(2).slots
    slots.held.add(slot)
    assert slots.surplus(2, len) == [], "else they would go to and fro"


def test_a_pipeline_that_names_another_group_now_lies_in_another_slot():
    slots = Slots()
    slots.put(spec("a"))
    slots.held.add(slot_of("a", ""))
    assert slots.holds("a") and slots.missing({}) == ["a"]
    slots.put(spec("a", "blue"))
    assert not slots.holds("a") and slots.missing({}) == []
    assert slots.empty() == [slot_of("a", "")]
    slots.remove("a")
    assert slots.wanted(1) is None


@pytest.mark.parametrize("schedulers", [2, 3, 7])
def test_no_surplus_leaves_less_than_the_share(schedulers):
    slots = Slots()
    for number in range(600):
        slots.put(spec(f"pipeline{number}"))
    slots.held |= set(slots.wanted(1).slots)
    released = slots.surplus(schedulers, lambda _: 0)
    kept = 600 - sum(len(slots.members(slot)) for slot in released)
    assert 600 / schedulers <= kept < 600 / schedulers + 10
