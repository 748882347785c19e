"""One owned pipeline, or lane of one: what it waits for, and what follows from each event. No I/O, so all is tested.

claiming --claimed--> waiting --emitted--> draining --ended--> idle | waiting
   ^  |                  ^                    |                  |    ^
   |  +-- claimed, and asleep already -------------------------- | ---+
   |                     +------- bell, timer (rows seen) --------+
   +--- lost (silent longer than the lease), doubted (the broker may have it or not), reconfigured
"""

import math
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from relay.models import Drain
from relay.process.metrics import PipelineLabels
from scheduler.refreshes import NEVER_SECONDS, Refreshes, on_grid

FIRST_AGAIN_SECONDS = 0.002
# Anyone can ring a bell, or say that a drain is over. What leads to nothing is followed at once a few times, and then
# less often; the looks of many pipelines fall on a common grid then.
VAIN_BELLS = 5
LONGEST_BELL_SECONDS = 1.0
LONGEST_LOOK_SECONDS = 0.25
LOOK_GRID_SECONDS = 0.05

Phase = Literal["claiming", "waiting", "draining", "idle"]
Seen = Literal["ended", "free", "foreign", "nothing"]
"""What a look at the row of the last drain shows: the drain in flight has ended; the lease of the owner before is free;
a drain ran that this scheduler did not emit; nothing new."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What a scheduler needs to know of a pipeline's configuration."""

    name: str
    """The pipeline's, or `orders/1`, `orders/2` of its further lanes, as in tide.drain."""
    outbox: str
    """Whose bell rings for it; empty for a reverse pipeline."""
    revision: int
    lease_ms: int
    poll_seconds: float
    labels: PipelineLabels
    group: str = ""
    """The group of schedulers that it names; empty if it names none."""
    drained: bool = True
    """False: another process brings its messages, so that no scheduler owns it."""
    refreshes: Refreshes | None = None
    """Of a stream table."""
    lanes: int = 1
    """How many drains the pipeline may have at a time. Each lane is owned like a pipeline, in the slot of its own."""

    @property
    def pipeline(self) -> str:
        return self.labels.pipeline

    def lane_names(self) -> list[str]:
        """All lanes of its pipeline; the first has the name of the pipeline."""
        return [self.pipeline, *(f"{self.pipeline}/{lane}" for lane in range(1, self.lanes))]

    def each_lane(self) -> list["Spec"]:
        return [replace(self, name=name) for name in self.lane_names()]


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
    """How often the bell rang during a drain, which may have read before: if ever, drain again after it. Or while it is
    claimed: then its first drain does not wait for those of others."""
    started: bool = False
    """Whether a worker is known to have started the last drain."""
    untaken_since: float | None = None
    """When the first drain was emitted that no worker has taken, nor any after it, as far as is known."""
    again_seconds: float = FIRST_AGAIN_SECONDS
    vain_bells: int = 0
    """Drains in a row that a bell caused, and that found nothing."""
    vain_looks: int = 0
    """Looks since the last drain ended that showed nothing new."""
    patience: float = 1.0
    """How many times its poll interval it sleeps."""
    broken: bool = False
    """Whether the last drain failed in a way that does not recover automatically."""
    began_at: float = -math.inf
    """When the last drain was emitted; or, of a stream table, when it was seen that there was none to emit."""
    stirred: bool = False
    """Whether what it follows has ended a refresh, and nothing has looked since."""
    vain_stirs: int = 0
    """Looks in a row that such an end caused, and that found nothing to do."""
    tick: datetime | None = None
    """Of a cron expression: the one that it waits for, or waited for last."""
    served: datetime | None = None
    """The last tick for which a refresh was wanted."""

    @property
    def starts(self) -> bool:
        """Whether it waits for its first drain under this owner and configuration, or is in it."""
        return self.cause == "config" and self.phase in ("waiting", "draining")

    def claimed(self, epoch: int, retry_seconds: float | None, now: float, begun_seconds: float | None = None) -> None:
        """The epoch is ours: whatever was queued or in flight before is stale.

        `begun_seconds`: how long ago the last refresh began, of a stream table that is to wait for its schedule.
        """
        self.epoch, self.number = epoch, 0
        cause = "lost" if self.phase == "draining" else "bell" if self.rings else "config"
        if begun_seconds is not None and not (retry_seconds and retry_seconds > 0):
            self.began_at, self.stirred = now - begun_seconds, True
            self._sleep(now)
        else:
            self._wait(now + max(0.0, retry_seconds or 0.0), cause)

    def held(self, lease_seconds: float, now: float) -> None:
        """A drain, ours or of the owner before, still has its lease: claim again when that has run out."""
        self.due_at = now + max(0.01, lease_seconds + 0.01)

    def emitted(self, now: float) -> None:
        self.phase, self.rings, self.started = "draining", 0, False
        self.began_at, self.stirred = now, False
        self.due_at = now + self.spec.lease_ms / 1000
        self.untaken_since = now if self.untaken_since is None else self.untaken_since

    def taken(self) -> None:
        """A worker has started the last drain."""
        self.started, self.untaken_since = True, None

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
        return Drain(self.spec.pipeline, self.epoch, self.number, self.spec.lease_ms)

    def rang(self, now: float, rings: int = 1) -> bool:
        """A publisher rang the bell of the outbox, so often. True if that makes the pipeline due."""
        if self.phase in ("draining", "claiming"):
            self.rings += rings
        elif (
            self.phase == "idle"
            or (self.phase == "waiting" and self.cause in ("again", "later"))
            or (self.starts and self.due_at <= now)
        ):
            self._wait(self._bell_at(now), "bell")
            return True
        return False

    def precedes(self, now: float) -> None:
        """It has something to deliver: its first drain does not wait for those of others."""
        if self.starts and self.due_at <= now:
            self._wait(now, "timer")

    def sleeps(self, now: float) -> None:
        """The last drain of the owner before has left it asleep, and nothing has come since."""
        if self.starts and self.due_at <= now:
            self._sleep(now)

    def polled(self, behind: bool, now: float) -> None:
        """The timer found ids above the offset, or none."""
        refreshes, stirred, self.stirred = self.spec.refreshes, self.stirred, False
        if behind:
            self.served = self.tick if self.ticked(now) else self.served
            self._wait(now, "schedule" if refreshes else "timer")
            return
        if refreshes and not all(each.follows for each in refreshes.schedules):
            self.began_at = now
        self.vain_stirs += stirred
        self._sleep(now)

    def stir(self, now: float) -> bool:
        """A stream table that it follows has ended a refresh, it is said. True if that makes it due sooner."""
        self.stirred = True
        if self.phase == "idle":
            self.due_at = min(self.due_at, self._stirred_at(now))
        return self.phase == "idle"

    def reconfigured(self, spec: Spec, now: float) -> None:
        """Claimed again: it may be another pipeline of the same name. A drain in flight ends at its next batch."""
        self.spec, self.phase, self.due_at = spec, "claiming", now
        self.tick = self.served = None

    def look_at(self, now: float) -> float:
        """When to look at the row of the last drain, since a notification says that it is over."""
        if not self.vain_looks:
            return now
        return _look_at(now, self.vain_looks)

    def looked(self, row: Any, now: float) -> Seen:
        """What the row says, of the statement `drains_look`; None if there is none."""
        seen = self._seen(row, now)
        if seen == "nothing":
            self.vain_looks += 1
        elif seen == "free":
            self.due_at = now
        else:
            self.vain_looks = 0
            if seen == "ended":
                self.broken = row.outcome == "failed" and row.needs_operator
                self.ended(row.outcome, row.retry_seconds, row.progressed, now)
            else:
                self.phase, self.due_at = "claiming", now
        return seen

    def _seen(self, row: Any, now: float) -> Seen:
        if row is None:
            return "nothing"
        if self.phase == "claiming":
            return "free" if row.is_over and self.due_at > now else "nothing"
        if row.epoch == self.epoch and row.number > self.number:
            return "foreign"
        is_ours = self.phase == "draining" and (row.epoch, row.number) == (self.epoch, self.number)
        return "ended" if is_ours and row.is_over else "nothing"

    def ended(self, outcome: str, retry_seconds: float | None, progressed: bool, now: float) -> None:
        """The drain in flight has ended."""
        self.untaken_since = None
        self.vain_stirs = 0 if progressed else self.vain_stirs
        if progressed or self.cause != "bell":
            self.vain_bells = 0
        elif outcome == "idle":
            self.vain_bells += 1
        again_seconds = FIRST_AGAIN_SECONDS if progressed else self.again_seconds
        self.again_seconds = FIRST_AGAIN_SECONDS
        if outcome == "failed":
            self._wait(now + max(0.0, retry_seconds or 0.0), "retry")
        elif outcome == "more":
            self._wait(now, "more")
        elif self.rings:
            self._wait(self._bell_at(now), "bell")
        elif outcome in ("again", "later"):
            self.again_seconds = min(again_seconds * 2, self.spec.poll_seconds)
            self._wait(now + (again_seconds if retry_seconds is None else retry_seconds), outcome)
        else:
            self._sleep(now)

    def _bell_at(self, now: float) -> float:
        """When a bell is answered."""
        if self.vain_bells < VAIN_BELLS:
            return now
        pause: float = FIRST_AGAIN_SECONDS * 2 ** min(self.vain_bells - VAIN_BELLS, 10)
        return now + min(pause, LONGEST_BELL_SECONDS, self.spec.poll_seconds)

    def _wait(self, until: float, cause: str) -> None:
        self.phase, self.due_at, self.cause = "waiting", until, cause

    def _sleep(self, now: float) -> None:
        self.phase = "idle"
        if self.spec.refreshes is None:
            pause = self.spec.poll_seconds * self.patience
            self.due_at = on_grid(now + pause, pause)
        else:
            self.tick = None
            self.due_at = min(self._refresh_at(each, now) for each in self.spec.refreshes.schedules)
            if self.stirred and any(each.follows for each in self.spec.refreshes.schedules):
                self.due_at = min(self.due_at, self._stirred_at(now))

    def _refresh_at(self, refreshes: Refreshes, now: float) -> float:
        """When to look by one schedule. Of several ticks it waits for the first."""
        if (cron := refreshes.cron) is None:
            return refreshes.next_at(self.began_at, now)
        tick = cron.next(self.began_at, self.served, now)
        if tick is None:
            return now + NEVER_SECONDS
        self.tick = min(tick, self.tick or tick)
        return max(now, cron.clock.when(tick))

    def ticked(self, now: float) -> bool:
        """Whether the tick that it waited for has come."""
        crons = [each.cron for each in self.spec.refreshes.schedules if each.cron] if self.spec.refreshes else []
        return bool(crons and self.tick and crons[0].clock.when(self.tick) <= now)

    def _stirred_at(self, now: float) -> float:
        """When to look, since what it follows has changed: at once after a time without refreshes."""
        refreshes = self.spec.refreshes
        pauses = [each.seconds for each in refreshes.schedules if each.follows] if refreshes else []
        at = self.began_at + min(pauses) if pauses else now
        return max(now, at, _look_at(now, self.vain_stirs) if self.vain_stirs else now)


def _look_at(now: float, vain: int) -> float:
    """When to look once more after so many looks that showed nothing new."""
    pause: float = min(LONGEST_LOOK_SECONDS, LOOK_GRID_SECONDS * 2 ** min(vain - 1, 8))
    return math.ceil((now + pause) / LOOK_GRID_SECONDS) * LOOK_GRID_SECONDS
