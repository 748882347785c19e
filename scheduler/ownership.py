"""The pipelines that one scheduler owns, in one session: taking and releasing them, hearing, and acting when due."""

import json
import math
import random
import time
from collections.abc import Iterable

import structlog

from relay.broker.queues import DRAIN_QUEUES
from relay.process.metrics import SchedulerMetrics
from scheduler.dispatch import Dispatch
from scheduler.due import DueList
from scheduler.session import Notification, Session
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

    def __len__(self) -> int:
        return len(self._owned)

    def __contains__(self, name: str) -> bool:
        return name in self._owned

    def next_at(self) -> float | None:
        """When something is due, in `time.monotonic()` seconds; None if nothing is."""
        due_at = self._due.next_at()
        return due_at if due_at is None else max(due_at, self._dispatch.paused_until)

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
                self._by_outbox[state.spec.outbox].discard(name)
                if spec.labels != state.spec.labels:
                    self._metrics.forget(name)
                state.reconfigured(spec, now)
                self._by_outbox.setdefault(spec.outbox, set()).add(name)
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
        self._by_outbox.setdefault(spec.outbox, set()).add(spec.name)
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
            self._by_outbox[state.spec.outbox].discard(name)
            self._due.remove(name)
            self._metrics.forget(name)
        self._metrics.pipelines_owned.set(len(self._owned))

    # Hearing ----------------------------------------------------------------------------------------------------

    def hear(self, notification: Notification) -> None:
        """A bell, or the end of a drain."""
        now = time.monotonic()
        if notification.channel == "tide_outbox_notify":
            for name in self._by_outbox.get(notification.payload, ()):
                self._bell(self._owned[name], now)
        elif notification.channel == "tide_relay_drain":
            name, epoch, number, outcome, retry_seconds, progressed = json.loads(notification.payload)
            if name in self._owned:
                self._drain_ended(self._owned[name], epoch, number, outcome, retry_seconds, progressed, now)

    def _bell(self, state: OwnedState, now: float) -> None:
        if state.rang(now):
            self._due.set(state.spec.name, now)
        elif state.rings == UNANSWERED_RINGS:
            self._session.silence(state.drain)

    def _drain_ended(
        self,
        state: OwnedState,
        epoch: int,
        number: int,
        outcome: str,
        retry_seconds: float | None,
        progressed: bool,
        now: float,
    ) -> None:
        if state.phase == "claiming":
            self._due.set(state.spec.name, now)  # the drain of the owner before is over: its lease is free
        elif state.is_current(epoch, number):
            state.ended(outcome, retry_seconds, progressed, now)
            self._due.set(state.spec.name, state.due_at)
            if outcome == "again":
                self._metrics.horizon_stalls.labels(*state.spec.labels).inc()

    # Acting -----------------------------------------------------------------------------------------------------

    def act(self) -> None:
        """Does what is due: claims, polls, emits drains."""
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
            self._metrics.lag_messages.labels(*labels).set(row.messages if row else 0)
            self._metrics.lag_seconds.labels(*labels).set((row and row.seconds) or 0)
            self._metrics.oldest_publisher_seconds.labels(*labels).set(row.publisher_seconds if row else 0)

    def measure_waiting(self) -> None:
        """Counts the drains that no worker has started. Does not ask again about one that is known to have started."""
        waiting = [state for state in self._owned.values() if state.phase == "draining" and not state.started]
        started = self._session.started([state.drain for state in waiting]) if waiting else set()
        for state in waiting:
            state.started = state.spec.name in started
        queues = [DRAIN_QUEUES[state.spec.labels.direction] for state in waiting if not state.started]
        for queue in DRAIN_QUEUES.values():
            self._metrics.drains_waiting.labels(queue).set(queues.count(queue))


def _names(pipelines: Iterable[OwnedState]) -> list[str]:
    return [state.spec.name for state in pipelines]
