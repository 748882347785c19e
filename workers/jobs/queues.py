"""What an engine knows of one queue, and what follows from each look at it. No I/O, so that every step can be tested.

A drain is held while there may be more to find here: it ends `more` as soon as there is a backlog, so that another
process is woken too; and otherwise when the queue has been silent for a while. Until then the engine hears the bell,
and so does the one that was the last to find jobs: it claims while the scheduler still finds a process to ask.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from relay.drains.lease import DrainResult, Outcome
from relay.models import Drain
from workers.jobs.hand_off import HandOff
from workers.jobs.http import HttpSender
from workers.jobs.slots import Way

WARM_SECONDS = 10.0
"""How long after its last job a queue is listened to here."""
MORE_SECONDS, LONGEST_MORE_SECONDS = 0.1, 2.0
"""A backlog asks for one more process in so long, and in twice that when it is still there: each such end writes the
row of the pipeline, of which no version can be removed while a snapshot is held. A process that is asked for the first
time asks for the next one at once, so that all are awake soon, however many they are."""
PARK_SECONDS = 1.0
"""How long a drain waits here for a free slot before another process is asked."""
FIRST_AGAIN_SECONDS = 0.002
LONGEST_AGAIN_SECONDS = 0.25
SOON_SECONDS = 1.5
"""Jobs that are due later are found by the timer of the scheduler."""
DISARM_AFTER = 3
"""So many claims in a row that found something: publishers do not have to ring, for we come back anyway."""
LONGEST_LOOK_SECONDS = 3600.0


class EndOfDrain(NamedTuple):
    group_id: int
    drain: Drain
    result: DrainResult
    disarm: bool
    """Whether its bell rings, and does not have to: the next drain is on its way."""


class Look(NamedTuple):
    """What may come without a bell, read just before a claim."""

    open_publishers: bool
    gaps: int
    due_seconds: float | None
    """Until the next job is due that waits for its time."""
    limited: bool


@dataclass(slots=True, eq=False)
class Queue:
    """One that this process has been told to look at."""

    name: str
    outbox_id: int
    group_id: int
    pipeline: str
    revision: int = 0
    ways: set[Way] = field(default_factory=set)
    """How its jobs are run here, as far as is known."""
    http: HttpSender | None = None
    hand_off: HandOff | None = None
    drain: Drain | None = None
    taken_at: float = 0.0
    """All times are `time.monotonic()` seconds."""
    held_until: float = 0.0
    renew_at: float = 0.0
    """When its lease is to be renewed: a process that is killed must not keep a queue from others for long."""
    hungry: bool = False
    """Whether it is to be claimed from as soon as there is room."""
    is_rung: bool = False
    """Whether its bell rang since the last claim was sent."""
    follows_bell: bool = False
    """Whether a claim is sent then though there is no drain: this process was the last that found jobs. One that finds
    none leaves the bell to the others."""
    was_rung: bool = False
    """Whether the claim that is under way was."""
    bell: Literal["arm", "disarm"] | None = None
    """What the next trip does with it, `arm` or `disarm`."""
    armed: bool = False
    """Whether this drain has armed the bell, and committed that."""
    quiet: bool = False
    """Whether every publisher that may still add jobs has seen the armed bell."""
    limited: bool = False
    streak: int = 0
    progressed: bool = False
    again_seconds: float = FIRST_AGAIN_SECONDS
    look_at: float = math.inf
    """When to look again, rung or not."""
    more_at: float = -math.inf
    """When another process may be asked for."""
    more_seconds: float = MORE_SECONDS
    worked_at: float = -math.inf
    ended: "list[EndOfDrain]" = field(default_factory=list)
    """What is to be written."""

    def take(self, drain: Drain, now: float) -> None:
        """A drain of this queue came."""
        if self.drain is not None:  # its lease ran out, and the next was begun
            self.drain = None
        self.drain, self.taken_at = drain, now
        self.held_until = now + WARM_SECONDS
        self.renewed(now)
        self.hungry, self.armed, self.quiet, self.bell = True, False, False, None
        self.progressed = False

    def renewed(self, now: float) -> None:
        assert self.drain is not None
        self.renew_at = now + self.drain.lease_ms / 3000

    def answered(self, revision: int | None, now: float) -> None:
        """The lease was renewed, under this revision of the pipeline; None: the drain was abandoned.

        A change may have gone unheard: it came just before the drain did, or while the session that hears was lost.
        """
        if revision is None:
            self.lost()
        elif revision == self.revision:
            self.renewed(now)
        else:
            self.changed()

    def changed(self) -> bool:
        """Its pipeline was, and the owner of now waits for the end of the drain. Whether there is one."""
        self.follows_bell = False
        if self.drain is None:
            return False
        self.end("more")
        return True

    def rang(self) -> bool:
        """Whether that concerns this process."""
        if self.drain is None and not self.follows_bell:
            return False
        self.hungry = self.is_rung = True
        return True

    def visited(self) -> bool:
        """A claim is sent. Whether a look goes before it, at what may come without a bell: that matters only if nothing
        is found, and when the bell rang, something is."""
        self.was_rung, self.is_rung = self.is_rung, False
        return self.armed and not self.was_rung

    def look_within(self, seconds: float, now: float) -> None:
        if seconds < LONGEST_LOOK_SECONDS:
            self.look_at = min(self.look_at, now + max(0.0, seconds))

    def ticked(self, now: float, *, listens: bool) -> None:
        """The time has passed; called before each trip."""
        if now >= self.look_at:
            self.look_at, self.hungry = math.inf, True
        if self.drain is None:
            return
        if now >= self.held_until and self.hungry:
            self.end("later", 0.0)
        elif now >= self.held_until or not (listens or self.hungry):
            self.end("more" if listens and self._is_warm(now) else "idle")

    def waits_for_room(self, now: float) -> None:
        """It is hungry, and there is no slot for it."""
        if self.drain is not None and now >= self.taken_at + PARK_SECONDS:
            self.end("later", 0.0)

    def next_at(self) -> float:
        """When `ticked` has something to do, rung or not."""
        return min(self.look_at, self.held_until, self.renew_at) if self.drain is not None else self.look_at

    def claimed(self, found: int, want: int, look: Look | None, now: float, *, listens: bool) -> None:
        """A claim came back with so many, of so many that were wanted."""
        if look is not None:
            self.limited = look.limited
        if found:
            self._found(found, want, now)
        elif self.drain is None:
            self.hungry = self.is_rung
            self.follows_bell = self.follows_bell and not self.was_rung
        elif not self.armed:
            self.bell, self.streak = "arm", 0
        elif look is not None:
            self.streak, self.hungry = 0, self.is_rung  # it may have rung while the claim was under way
            self._nothing(look, now, listens=listens)

    def _found(self, found: int, want: int, now: float) -> None:
        self.worked_at, self.hungry, self.progressed, self.follows_bell = now, True, True, True
        self.streak += 1
        self.again_seconds = FIRST_AGAIN_SECONDS
        if self.drain is None:
            return
        if self.armed and self.streak == DISARM_AFTER:
            self.bell = "disarm"
        if found >= want and now >= self.more_at:
            is_new = now >= self.more_at + LONGEST_MORE_SECONDS
            self.more_seconds = MORE_SECONDS if is_new else min(2 * self.more_seconds, LONGEST_MORE_SECONDS)
            self.more_at = now + self.more_seconds
            self.end("more")

    def _nothing(self, look: Look, now: float, *, listens: bool) -> None:
        if not look.open_publishers:
            self.quiet = True
        unheard = look.gaps > 0 or not self.quiet
        stays = listens and self._is_warm(now) and now < self.held_until
        if look.due_seconds is not None and look.due_seconds <= LONGEST_LOOK_SECONDS and stays:
            self.look_within(look.due_seconds, now)
        if unheard and stays:
            self.look_within(self.again_seconds, now)
            self.again_seconds = min(2 * self.again_seconds, LONGEST_AGAIN_SECONDS)
        elif unheard:
            self.end("again")
        elif not stays and look.due_seconds is not None and look.due_seconds <= SOON_SECONDS:
            self.end("later", max(0.001, look.due_seconds))
        elif not stays:
            self.end("more" if listens and self._is_warm(now) else "idle")

    def end(self, outcome: Outcome, retry_seconds: float | None = None) -> None:
        """The drain ends; what the engine finds after that is its own affair."""
        assert self.drain is not None
        result = DrainResult(outcome, self.progressed, retry_seconds)
        self.ended.append(EndOfDrain(self.group_id, self.drain, result, outcome == "more" and self.armed))
        self.lost()

    def lost(self) -> None:
        """The drain was abandoned."""
        self.drain, self.armed, self.quiet, self.bell = None, False, False, None

    def bell_set(self) -> None:
        """What was asked of the bell is committed."""
        self.armed, self.bell = self.bell == "arm", None
        self.quiet = False

    def _is_warm(self, now: float) -> bool:
        return now - self.worked_at < WARM_SECONDS
