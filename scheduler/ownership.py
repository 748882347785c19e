"""The pipelines that one scheduler owns, in one session: taking and releasing them, hearing, and acting when due."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog

from relay.process.metrics.scheduler import SchedulerMetrics
from scheduler.agenda import Agenda
from scheduler.chores import Pieces, pages
from scheduler.dispatch import Dispatch
from scheduler.followers import Followers
from scheduler.heard import ENDS, Heard
from scheduler.measures import Measures
from scheduler.refreshing import Refreshing
from scheduler.session import Session
from scheduler.slots import Slots
from scheduler.starts import STARTS
from scheduler.state import OwnedState, Spec

log = structlog.get_logger(__name__)

# So many rings during one drain mean that no worker has started it: publishers ring in vain, and wait for each other.
UNANSWERED_RINGS = 10
# Of one question or one write, which takes some milliseconds: pipelines that it takes, releases, claims, or looks at.
PIPELINES = 50
POLLED = 250
FOLLOWED = 1000
# How soon to ask again whether the drains of the lanes before have ended.
LANES_SECONDS = 0.1
# Where more sleep, their timers wait longer: the bell wakes them, and the timer is for what rang none. Not those of
# queues, where a job becomes due without a bell. Stream tables have a schedule instead.
POLLED_A_SECOND = 2000
# Of one turn: some 10 ms; then it hears what happened meanwhile. A number, because all of a turn takes longer where the
# processor is busy.
EMITTED = 32


class Ownership:
    """What this scheduler owns. Forgotten as a whole when the session is lost. Methods raise NotConnected then."""

    def __init__(self, session: Session, dispatch: Dispatch, metrics: SchedulerMetrics) -> None:
        self._session = session
        self._dispatch = dispatch
        self._metrics = metrics
        self._owned: dict[str, OwnedState] = {}
        self._by_outbox: dict[str, set[str]] = {}
        self._followers = Followers()
        self._queues: set[str] = set()
        self._slots = Slots()
        self._agenda = Agenda(self._owned)
        self._refreshing = Refreshing(session, self._owned, self._agenda.refreshes)
        self.measures = Measures(session, metrics, self._owned)
        session.heard.outboxes, session.heard.pipelines = self._by_outbox, self._owned
        session.heard.followed = self._followers

    def __len__(self) -> int:
        return len(self._owned)

    def __contains__(self, name: str) -> bool:
        return name in self._owned

    def queues(self) -> set[str]:
        """The queues of jobs among what it owns."""
        return set(self._queues)

    def outboxes(self, names: Iterable[str]) -> set[str]:
        """The outboxes that these pipelines read, of those that it owns."""
        return {self._owned[name].spec.outbox for name in names if name in self._owned} - {""}

    def next_at(self) -> float | None:
        """When something is due, in `time.monotonic()` seconds; None if nothing is."""
        now = time.monotonic()
        return self._agenda.next_at(now, self._dispatch.paused_until, self._refreshing.next_at())

    def forget(self) -> None:
        """The session is lost: another scheduler may own all this already."""
        for state in self._owned.values():
            self._metrics.forget(state.spec.labels)
        self._owned.clear()
        self.measures.forget()
        self._metrics.pipelines_owned.set(0)

    # Taking and releasing ---------------------------------------------------------------------------------------

    def follow(self, changed: Iterable[str], specs: Mapping[str, Spec]) -> Pieces:
        """Adopts changed configurations; releases what is disabled, invalid, deleted, or lies in another slot now."""
        for names in pages(list(changed), FOLLOWED):
            yield from self._release([name for name in names if not self._follow(name, specs.get(name))])
            yield

    def _follow(self, name: str, spec: Spec | None) -> bool:
        """Whether it may own the pipeline still, if it does."""
        if spec is None:
            self._slots.remove(name)
        else:
            self._slots.put(spec)
        state = self._owned.get(name)
        if state is None:
            return True
        if spec is None or not self._slots.holds(name):
            return False
        if spec.revision != state.spec.revision:
            self._reconfigure(state, spec)
        return True

    def share(self, specs: Mapping[str, Spec], schedulers: int) -> Pieces:
        """Releases slots above a fair share, busy ones last; takes free ones up to it, and owns what lies there."""
        self._refreshing.schedulers = schedulers
        surplus = self._slots.surplus(schedulers, self._draining) + self._slots.empty()
        for slot in surplus:
            yield from self._release([name for name in self._slots.members(slot) if name in self._owned])
            self._slots.held.discard(slot)
            self._session.release_slots([slot])
        if not surplus and (wanted := self._slots.wanted(schedulers)):
            self._slots.held |= self._session.take_slots(*wanted)
        for names in pages(self._slots.missing(self._owned), PIPELINES):
            for name in self._session.adopt(
                [specs[name] for name in names if self._slots.holds(name) and name in specs]
            ):
                self._own(specs[name])
            yield

    def _draining(self, names: Iterable[str]) -> int:
        return sum(name in self._owned and self._owned[name].phase == "draining" for name in names)

    def _reconfigure(self, state: OwnedState, spec: Spec) -> None:
        log.info("pipeline reconfigured", pipeline=spec.name, revision=spec.revision)
        self._forget_outbox(state)
        if spec.labels != state.spec.labels:
            self._metrics.forget(state.spec.labels)
        state.reconfigured(spec, time.monotonic())
        self._follow_outbox(state)
        self._agenda.put(state)

    def _own(self, spec: Spec) -> None:
        log.info("pipeline owned", pipeline=spec.name)
        state = self._owned[spec.name] = OwnedState(spec)
        self._follow_outbox(state)
        self._agenda.put(state)
        self._metrics.epochs.inc()
        self._metrics.pipelines_owned.set(len(self._owned))

    def _release(self, names: Sequence[str]) -> Pieces:
        """A drain in flight goes on; the next owner waits for its lease."""
        for page in pages(names, PIPELINES):
            self._session.release(page)
            for name in page:
                self._drop(name)
            self._metrics.pipelines_owned.set(len(self._owned))
            yield

    def _drop(self, name: str) -> None:
        """It is not ours any more."""
        if (state := self._owned.pop(name, None)) is None:
            return
        log.info("pipeline released", pipeline=name)
        self._forget_outbox(state)
        self._agenda.remove(name)
        self.measures.forget_series(state)

    def _follow_outbox(self, state: OwnedState) -> None:
        self._followers.put(state.spec)
        if state.spec.outbox:
            self._by_outbox.setdefault(state.spec.outbox, set()).add(state.spec.name)
        if state.spec.labels.direction == "jobs":
            self._queues.add(_queue(state.spec))

    def _forget_outbox(self, state: OwnedState) -> None:
        self._followers.remove(state.spec)
        readers = self._by_outbox.get(state.spec.outbox, set())
        readers.discard(state.spec.name)
        if not readers:
            self._by_outbox.pop(state.spec.outbox, None)
            self._queues.discard(_queue(state.spec))

    # Hearing ----------------------------------------------------------------------------------------------------

    def hear(self, heard: Heard) -> None:
        """Bells, and ends of drains. Anyone can send either: neither is more than a reason to look."""
        now = time.monotonic()
        for outbox, rings in heard.rings.items():
            for name in self._by_outbox.get(outbox, ()):
                self._bell(self._owned[name], rings, now)
        for name in self._followers.of(heard.refreshed):
            if self._owned[name].stir(now):
                self._agenda.put(self._owned[name])
        for name in heard.ended:
            if name in self._owned and name not in self._agenda.looks:
                self._agenda.looks.set(name, self._owned[name].look_at(now))

    def _bell(self, state: OwnedState, rings: int, now: float) -> None:
        before = state.rings
        if state.rang(now, rings):
            self._agenda.put(state)
        elif state.phase == "draining" and before < UNANSWERED_RINGS <= state.rings:
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
            self._agenda.put(state)
            self.measures.show_broken(state)
            if seen == "foreign":
                log.warning("a drain ran that no scheduler emitted: check who can write to the broker", pipeline=name)
            elif seen == "ended" and row.outcome == "again":
                self._metrics.horizon_stalls.labels(*state.spec.labels).inc()

    # Acting -----------------------------------------------------------------------------------------------------

    def act(self) -> None:
        """Does some of what is due: looks, claims, polls, emits drains. What is left is due still."""
        now = time.monotonic()
        self._look(self._agenda.looks.pop(now, POLLED))
        now = time.monotonic()
        if now < self._dispatch.paused_until:
            return
        due = self._agenda.take(self._agenda.urgent, now, PIPELINES)
        calm = self._agenda.take(self._agenda.calm, now, POLLED)
        starts = self._agenda.take_starts(now)
        self._poll([state for state in calm if state.phase == "idle"], now)
        claiming = [state for state in (*due, *calm) if state.phase in ("claiming", "draining")]
        self._claim(claiming[:PIPELINES], now)
        waiting = [state for state in (*due, *starts) if state.phase == "waiting" and state.due_at <= now]
        refreshes = [self._owned[name] for name in self._refreshing.take(now, EMITTED)]
        for state in (*waiting[:EMITTED], *refreshes):
            self._emit(state)
        for state in (*due, *calm, *starts, *refreshes):
            if state.spec.name in self._owned:
                self._agenda.put(state)

    def _claim(self, pipelines: list[OwnedState], now: float) -> None:
        """Raises the epochs of pipelines that are new here, or whose drain was silent for longer than its lease."""
        if not pipelines:
            return
        found = {row.name: row for row in self._session.raise_epochs([state.spec for state in pipelines])}
        # Deleted, and perhaps created again since: then it has no owner, and is distributed like a new one.
        if lost := [name for name in _names(pipelines) if name not in found]:
            self._session.release(lost)
            for name in lost:
                self._drop(name)
        streams = [state for state in pipelines if state.spec.refreshes and state.spec.name in found]
        begun = self._session.refreshes_begun(_names(streams)) if streams else {}
        self._change_lanes([state for state in pipelines if (row := found.get(state.spec.name)) and row.divides], now)
        for state in pipelines:
            row = found.get(state.spec.name)
            if row is None or row.divides:
                continue
            if row.epoch is None:
                state.held(row.lease_seconds, now)
                continue
            if state.phase == "draining":
                log.warning("drain lost", pipeline=state.spec.name, epoch=state.epoch, drain=state.number)
                self._metrics.lost_drains.labels(*state.spec.labels).inc()
            state.claimed(row.epoch, row.retry_seconds, now, begun.get(state.spec.name))
        if len(self._owned) > STARTS:
            self._sort([state for state in pipelines if state.starts], now)

    def _change_lanes(self, pipelines: list[OwnedState], now: float) -> None:
        """Of pipelines whose number of lanes was changed: claimed again when those before have ended their drains."""
        wanted = {state.spec.pipeline: state.spec.lanes for state in pipelines}
        changed = {name for name, lanes in wanted.items() if self._session.change_lanes(name, lanes)}
        for state in pipelines:
            state.held(0.0 if state.spec.pipeline in changed else LANES_SECONDS, now)

    def _sort(self, starting: list[OwnedState], now: float) -> None:
        """Where many start: those that have something to deliver are first, and those that sleep need no drain."""
        names = _names(starting)
        behind = self._session.behind(names) if names else set()
        others = [name for name in names if name not in behind]
        asleep = self._session.asleep(others) if others else set()
        for state in starting:
            if state.spec.name in behind:
                state.precedes(now)
            elif state.spec.name in asleep:
                state.sleeps(now)

    def _poll(self, pipelines: list[OwnedState], now: float) -> None:
        """The timer: one question to the database for all that are due."""
        if not pipelines:
            return
        # A tick is a refresh, also where nothing has changed: what is shown then is known to be of that time.
        ticked = {state.spec.name for state in pipelines if state.ticked(now)}
        behind = ticked | self._session.behind(_names(pipelines))
        patience = max(1.0, len(self._owned) / POLLED_A_SECOND)
        for state in pipelines:
            state.patience = 1.0 if state.spec.labels.direction == "jobs" else patience
            state.polled(state.spec.name in behind, now)

    def _emit(self, state: OwnedState) -> None:
        if time.monotonic() < self._dispatch.paused_until:
            state.due_at = self._dispatch.paused_until
        elif self._dispatch.emit(state.next_drain(), state.spec.labels.direction):
            self._metrics.wakeups.labels(*state.spec.labels, state.cause).inc()
            state.emitted(time.monotonic())
            self.measures.emitted(state.spec.name)
            self._agenda.starts.emitted(state, time.monotonic())
        else:
            state.doubted(self._dispatch.paused_until)


def _names(pipelines: Iterable[OwnedState]) -> list[str]:
    return [state.spec.name for state in pipelines]


def _queue(spec: Spec) -> str:
    """The queue of jobs that a pipeline serves."""
    return spec.outbox.removeprefix("jobs/")
