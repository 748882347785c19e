"""One owned pipeline: what it waits for, and what follows from each event. No I/O, so every step can be tested.

claiming --claimed--> waiting --emitted--> draining --ended--> idle | waiting
   ^                     ^                    |                  |
   |                     +------- bell, timer (rows seen) --------+
   +--- lost (silent longer than the lease), doubted (the broker may have it or not), reconfigured
"""

import math
from dataclasses import dataclass
from typing import Literal

from relay.models import Drain
from relay.process.metrics import PipelineLabels

FIRST_AGAIN_SECONDS = 0.002
# Timers fall on a common grid, so that one question to the database serves many pipelines.
TIMER_GRID_SECONDS = 0.25

Phase = Literal["claiming", "waiting", "draining", "idle"]


@dataclass(frozen=True, slots=True)
class Spec:
    """What a scheduler needs to know of a pipeline's configuration."""

    name: str
    outbox: str
    """Whose bell rings for it; empty for a reverse pipeline."""
    revision: int
    lease_ms: int
    poll_seconds: float
    labels: PipelineLabels
    drained: bool = True
    """False: another process brings its messages, so that no scheduler owns it."""


@dataclass(slots=True)
class OwnedState:
    """A pipeline whose advisory lock this scheduler holds. Each event sets when it is due next."""

    spec: Spec
    phase: Phase = "claiming"
    due_at: float = 0.0
    cause: str = "config"
    """Why the next drain is wanted; a label of the wake-up metric."""
    epoch: int = 0
    number: int = 0
    rings: int = 0
    """How often the bell rang during a drain, which may have read before: if ever, drain again after it."""
    started: bool = False
    """Whether a worker is known to have started the last drain."""
    again_seconds: float = FIRST_AGAIN_SECONDS

    def claimed(self, epoch: int, retry_seconds: float | None, now: float) -> None:
        """The epoch is ours: whatever was queued or in flight before is stale."""
        self.epoch, self.number = epoch, 0
        self._wait(now + max(0.0, retry_seconds or 0.0), "lost" if self.phase == "draining" else "config")

    def held(self, lease_seconds: float, now: float) -> None:
        """A drain, ours or of the owner before, still has its lease: claim again when that has run out."""
        self.due_at = now + max(0.01, lease_seconds + 0.01)

    def emitted(self, now: float) -> None:
        self.phase, self.rings, self.started = "draining", 0, False
        self.due_at = now + self.spec.lease_ms / 1000

    def doubted(self, until: float) -> None:
        """The broker failed, and may have the drain or not: only a new epoch rules out that it starts later."""
        self.phase, self.due_at = "claiming", until

    def next_drain(self) -> Drain:
        """The drain to emit. A number is never used twice."""
        self.number += 1
        return self.drain

    @property
    def drain(self) -> Drain:
        """The last drain that was emitted."""
        return Drain(self.spec.name, self.epoch, self.number, self.spec.lease_ms)

    def rang(self, now: float) -> bool:
        """A publisher rang the bell of the outbox. True if that makes the pipeline due."""
        if self.phase == "draining":
            self.rings += 1
        elif self.phase == "idle" or (self.phase == "waiting" and self.cause in ("again", "later")):
            self._wait(now, "bell")
            return True
        return False

    def polled(self, behind: bool, now: float) -> None:
        """The timer found ids above the offset, or none."""
        if behind:
            self._wait(now, "timer")
        else:
            self._sleep(now)

    def reconfigured(self, spec: Spec, now: float) -> None:
        """Claimed again: it may be another pipeline of the same name. A drain in flight ends at its next batch."""
        self.spec, self.phase, self.due_at = spec, "claiming", now

    def is_current(self, epoch: int, number: int) -> bool:
        return self.phase == "draining" and (epoch, number) == (self.epoch, self.number)

    def ended(self, outcome: str, retry_seconds: float | None, progressed: bool, now: float) -> None:
        """The drain in flight has ended."""
        again_seconds = FIRST_AGAIN_SECONDS if progressed else self.again_seconds
        self.again_seconds = FIRST_AGAIN_SECONDS
        if outcome == "failed":
            self._wait(now + (retry_seconds or 0.0), "retry")
        elif outcome == "more":
            self._wait(now, "more")
        elif self.rings:
            self._wait(now, "bell")
        elif outcome in ("again", "later"):
            self.again_seconds = min(again_seconds * 2, self.spec.poll_seconds)
            self._wait(now + (again_seconds if retry_seconds is None else retry_seconds), outcome)
        else:
            self._sleep(now)

    def _wait(self, until: float, cause: str) -> None:
        self.phase, self.due_at, self.cause = "waiting", until, cause

    def _sleep(self, now: float) -> None:
        self.phase = "idle"
        self.due_at = math.ceil((now + self.spec.poll_seconds) / TIMER_GRID_SECONDS) * TIMER_GRID_SECONDS
