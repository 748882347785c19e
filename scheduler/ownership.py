"""The pipelines that one scheduler owns, in one session: taking and releasing them, hearing, and acting when due."""

import math
import random
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import structlog

from relay.broker.queues import DRAIN_QUEUES
from relay.process.metrics import SchedulerMetrics
from scheduler.dispatch import Dispatch
from scheduler.due import DueList
from scheduler.heard import ENDS, Heard
from scheduler.session import Session, Waiting
from scheduler.state import OwnedState, Spec

log = structlog.get_logger(__name__)

# So many rings during one drain mean that no worker has started it: publishers ring in vain, and wait for each other.
UNANSWERED_RINGS = 10


class Ownership:
    """What this scheduler owns. Forgotten as a whole when the session is lost. Methods raise NotConnected then."""

    def __init__(self, session: Session, dispatch: Dispatch, metrics: SchedulerMetrics) -> None:
        self._session = session
        self._dispatch = dispatch
        self._metrics = metrics
        self._owned: dict[str, OwnedState] = {}
        self._by_outbox: dict[str, set[str]] = {}
        self._due = DueList()
        self._looks = DueList()
        """The pipelines whose drain is said to be over."""
        session.heard.outboxes, session.heard.pipelines = self._by_outbox, self._owned

    def __len__(self) -> int:
        return len(self._owned)

    def __contains__(self, name: str) -> bool:
        return name in self._owned

    def queues(self) -> list[str]:
        """The queues of jobs among what it owns."""
        specs = [state.spec for state in self._owned.values()]
        return [spec.outbox.removeprefix("jobs/") for spec in specs if spec.labels.direction == "jobs"]

    def outboxes(self, names: Iterable[str]) -> set[str]:
        """The outboxes that these pipelines read, of those that it owns."""
        return {self._owned[name].spec.outbox for name in names if name in self._owned} - {""}

    def next_at(self) -> float | None:
        """When something is due, in `time.monotonic()` seconds; None if nothing is."""
        due_at, look_at = self._due.next_at(), self._looks.next_at()
        if due_at is not None:
            due_at = max(due_at, self._dispatch.paused_until)
        return min((at for at in (due_at, look_at) if at is not None), default=None)

    def forget(self) -> None:
        """The session is lost: another scheduler may own all this already."""
        for name in self._owned:
            self._metrics.forget(name)
        self._owned.clear()
        self.measure_waiting()
        self._metrics.pipelines_owned.set(0)

    # Taking and releasing ---------------------------------------------------------------------------------------

    def follow(self, specs: dict[str, Spec]) -> None:
        """Adopts changed configurations; releases what is disabled, invalid, deleted, or of another group now."""
        now = time.monotonic()
        self._release([name for name in self._owned if name not in specs])
        for name, state in self._owned.items():
            spec = specs[name]
            if spec.revision != state.spec.revision:
                log.info("pipeline reconfigured", pipeline=name, revision=spec.revision)
                self._forget_outbox(state)
                if spec.labels != state.spec.labels:
                    self._metrics.forget(name)
                state.reconfigured(spec, now)
                self._follow_outbox(state)
                self._due.set(name, state.due_at)

    def share(self, specs: dict[str, Spec], schedulers: int) -> None:
        """Takes pipelines that have no owner, up to a fair share, and releases a surplus, busy ones last."""
        surplus = len(self._owned) - math.ceil(len(specs) / max(1, schedulers))
        if surplus > 0:
            self._release(sorted(self._owned, key=lambda name: self._owned[name].phase == "draining")[:surplus])
        elif surplus < 0 and (missing := [name for name in specs if name not in self._owned]):
            unowned = self._session.unowned(missing)
            random.shuffle(unowned)
            for name in self._session.take(unowned[:-surplus]):
                self._own(specs[name])

    def _own(self, spec: Spec) -> None:
        log.info("pipeline owned", pipeline=spec.name)
        state = self._owned[spec.name] = OwnedState(spec)
        self._follow_outbox(state)
        self._due.set(spec.name, state.due_at)
        self._metrics.epochs.labels(*spec.labels).inc()
        self._metrics.pipelines_owned.set(len(self._owned))

    def _release(self, names: list[str]) -> None:
        """A drain in flight goes on; the next owner waits for its lease."""
        if not names:
            return
        self._session.release(names)
        for name in names:
            log.info("pipeline released", pipeline=name)
            state = self._owned.pop(name)
            self._forget_outbox(state)
            self._due.remove(name)
            self._looks.remove(name)
            self._metrics.forget(name)
        self._metrics.pipelines_owned.set(len(self._owned))

    def _follow_outbox(self, state: OwnedState) -> None:
        if state.spec.outbox:
            self._by_outbox.setdefault(state.spec.outbox, set()).add(state.spec.name)

    def _forget_outbox(self, state: OwnedState) -> None:
        readers = self._by_outbox.get(state.spec.outbox, set())
        readers.discard(state.spec.name)
        if not readers:
            self._by_outbox.pop(state.spec.outbox, None)

    # Hearing ----------------------------------------------------------------------------------------------------

    def hear(self, heard: Heard) -> None:
        """Bells, and ends of drains. Anyone can send either: neither is more than a reason to look."""
        now = time.monotonic()
        for outbox, rings in heard.rings.items():
            for name in self._by_outbox.get(outbox, ()):
                self._bell(self._owned[name], rings, now)
        for name in heard.ended:
            if name in self._owned and name not in self._looks:
                self._looks.set(name, self._owned[name].look_at(now))

    def _bell(self, state: OwnedState, rings: int, now: float) -> None:
        before = state.rings
        if state.rang(now, rings):
            self._due.set(state.spec.name, state.due_at)
        elif before < UNANSWERED_RINGS <= state.rings:
            self._session.silence(state.drain)

    def _look(self, names: list[str]) -> None:
        """One question to the database for all whose drain is said to be over."""
        if not names:
            return
        rows = self._session.drains(names)
        now = time.monotonic()
        for name in names:
            state = self._owned[name]
            row: Any = rows.get(name)
            seen = state.looked(row, now)
            if seen == "nothing":
                self._metrics.notifications_ignored.labels(ENDS).inc()
                continue
            self._due.set(name, state.due_at)
            self._metrics.pipeline_broken.labels(*state.spec.labels).set(state.broken)
            if seen == "foreign":
                log.warning("a drain ran that no scheduler emitted: check who can write to the broker", pipeline=name)
            elif seen == "ended" and row.outcome == "again":
                self._metrics.horizon_stalls.labels(*state.spec.labels).inc()

    # Acting -----------------------------------------------------------------------------------------------------

    def act(self) -> None:
        """Does what is due: looks, claims, polls, emits drains."""
        now = time.monotonic()
        self._look(self._looks.pop(now))
        now = time.monotonic()
        if now < self._dispatch.paused_until:
            return
        due = [self._owned[name] for name in self._due.pop(now)]
        self._claim([state for state in due if state.phase in ("claiming", "draining")], now)
        self._poll([state for state in due if state.phase == "idle"], now)
        for state in due:
            if state.phase == "waiting" and state.due_at <= now:
                self._emit(state)
            if state.spec.name in self._owned:
                self._due.set(state.spec.name, state.due_at)

    def _claim(self, pipelines: list[OwnedState], now: float) -> None:
        """Raises the epochs of pipelines that are new here, or whose drain was silent for longer than its lease."""
        if not pipelines:
            return
        found = {row.pipeline: row for row in self._session.raise_epochs(_names(pipelines))}
        # Deleted, and perhaps created again since: then it has no owner, and is distributed like a new one.
        self._release([name for name in _names(pipelines) if name not in found])
        for state in pipelines:
            row = found.get(state.spec.name)
            if row is None:
                continue
            if row.epoch is None:
                state.held(row.lease_seconds, now)
                continue
            if state.phase == "draining":
                log.warning("drain lost", pipeline=state.spec.name, epoch=state.epoch, drain=state.number)
                self._metrics.lost_drains.labels(*state.spec.labels).inc()
            state.claimed(row.epoch, row.retry_seconds, now)

    def _poll(self, pipelines: list[OwnedState], now: float) -> None:
        """The timer: one question to the database for all that are due."""
        if not pipelines:
            return
        behind = self._session.behind(_names(pipelines))
        for state in pipelines:
            state.polled(state.spec.name in behind, now)

    def _emit(self, state: OwnedState) -> None:
        if time.monotonic() < self._dispatch.paused_until:
            state.due_at = self._dispatch.paused_until
        elif self._dispatch.emit(state.next_drain(), state.spec.labels.direction):
            self._metrics.wakeups.labels(*state.spec.labels, state.cause).inc()
            state.emitted(time.monotonic())
        else:
            state.doubted(self._dispatch.paused_until)

    # Measuring --------------------------------------------------------------------------------------------------

    def measure_lag(self) -> None:
        """Sets the lag metrics of every owned pipeline."""
        behind = {row.name: row for row in self._session.lag(list(self._owned))} if self._owned else {}
        for name, state in self._owned.items():
            row, labels = behind.get(name), state.spec.labels
            self._metrics.pipeline_broken.labels(*labels).set(state.broken)
            self._metrics.lag_messages.labels(*labels).set(row.messages if row else 0)
            self._metrics.lag_seconds.labels(*labels).set((row and row.seconds) or 0)
            self._metrics.oldest_publisher_seconds.labels(*labels).set(row.publisher_seconds if row else 0)

    def measure_waiting(self) -> None:
        """Counts the drains that no worker has started. Does not ask again about one that is known to have started."""
        waiting = [state for state in self._owned.values() if state.phase == "draining" and not state.started]
        started = self._session.started([state.drain for state in waiting]) if waiting else set()
        for state in waiting:
            if state.spec.name in started:
                state.taken()
        queues = [DRAIN_QUEUES[state.spec.labels.direction] for state in waiting if not state.started]
        for queue in DRAIN_QUEUES.values():
            self._metrics.drains_waiting.labels(queue).set(queues.count(queue))

    def waiting(self) -> dict[str, Waiting]:
        """The drains that no worker has taken, by queue; a pipeline counts once, however often it was emitted again."""
        now = time.monotonic()
        found: dict[str, list[float]] = defaultdict(list)
        for state in self._owned.values():
            if state.untaken_since is not None:
                found[DRAIN_QUEUES[state.spec.labels.direction]].append(now - state.untaken_since)
        return {queue: Waiting(len(ages), round(max(ages), 1)) for queue, ages in found.items()}


def _names(pipelines: Iterable[OwnedState]) -> list[str]:
    return [state.spec.name for state in pipelines]
