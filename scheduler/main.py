"""The scheduler's loop: wait for a notification or the next due time, then act. One thread, one PostgreSQL session.

Losing the session loses every pipeline at once; the loop forgets all it knew and starts again with a new one.
"""

import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import dramatiq
import structlog

from relay.errors import ConfigError, NotConnected, RelayError
from relay.metrics import SchedulerMetrics
from relay.queues import enqueue_drain
from relay.settings import Settings
from relay.stop import Stop
from scheduler.catalog import Catalog
from scheduler.due import DueList
from scheduler.http import Health
from scheduler.owned import Owned
from scheduler.session import Notification, Session

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 1.0
# Far above the longest wait inside the loop, which is an enqueue to a broker that does not answer.
EVICT_SECONDS = 15.0
LAG_SECONDS = 5.0
EXTEND_SECONDS = 5.0
BROKER_PAUSE_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 5.0


@dataclass(slots=True)
class Chore:
    """Something done every so often, between other things."""

    interval_seconds: float
    run: Callable[[], None]
    next_at: float = field(default=0.0)


class Scheduler:
    """Owns its share of the pipelines and emits their drains until it is asked to stop."""

    def __init__(self, settings: Settings, broker: dramatiq.Broker, metrics: SchedulerMetrics, stop: Stop) -> None:
        self._settings = settings
        self._broker = broker
        self._metrics = metrics
        self._stop = stop
        self._started_at = time.monotonic()
        self._beat_at = 0.0
        self._broker_trouble: str | None = None
        self._database_trouble: str | None = "not connected to PostgreSQL yet"
        self._broker_pause_until = 0.0
        self._session: Session
        self._forget_all()

    def run(self) -> None:
        """Returns when `stop` is set. Raises ConfigError or MigrationError if it cannot start at all."""
        pause_seconds, connected_before = 0.1, False
        while not self._stop.is_set():
            try:
                self._session = Session(self._settings)
                connected_before, pause_seconds = True, 0.1
                self._serve()
            except (NotConnected, ConfigError) as error:
                if isinstance(error, ConfigError) and not connected_before:
                    raise
                self._lost(error)
                self._stop.wait(random.uniform(0, pause_seconds))
                pause_seconds = min(LONGEST_PAUSE_SECONDS, pause_seconds * 2)

    def health(self) -> Health:
        """How it is; safe from any thread."""
        silent_seconds = time.monotonic() - self._beat_at
        reasons = [reason for reason in (self._database_trouble, self._broker_trouble) if reason]
        if not self._database_trouble and silent_seconds > EVICT_SECONDS:
            reasons.append(f"the loop has been silent for {silent_seconds:.0f} seconds")
        uptime_seconds = time.monotonic() - self._started_at
        return Health(len(self._owned), uptime_seconds, tuple(reasons), ready=self._database_trouble is None)

    # The session ------------------------------------------------------------------------------------------------

    def _forget_all(self) -> None:
        self._owned: dict[str, Owned] = {}
        self._by_outbox: dict[str, set[str]] = {}
        self._due = DueList()
        self._catalog = Catalog(self._settings.relay_group_id)
        self._chores = {
            "heartbeat": Chore(HEARTBEAT_SECONDS, self._heartbeat),
            "discover": Chore(self._settings.discovery_interval_seconds, self._discover),
            "share": Chore(HEARTBEAT_SECONDS, self._share),
            "lag": Chore(LAG_SECONDS, self._measure_lag),
            "extend": Chore(EXTEND_SECONDS, self._extend),
        }

    def _lost(self, error: RelayError) -> None:
        log.error("session lost, and every pipeline with it", reason=str(error), pipelines=len(self._owned))
        self._metrics.database_losses.inc()
        self._database_trouble = str(error)
        for name in list(self._owned):
            self._metrics.forget(name)
        self._forget_all()
        self._metrics.pipelines_owned.set(0)

    def _serve(self) -> None:
        try:
            log.info("scheduler started", scheduler=str(self._session.scheduler_id))
            while not self._stop.is_set():
                self._do_chores()
                self._act(time.monotonic())
                for notification in self._session.wait(self._stop, self._idle_seconds()):
                    self._hear(notification, time.monotonic())
            log.info("scheduler stopping", pipelines=len(self._owned))
        finally:
            self._session.close()

    def _do_chores(self) -> None:
        for chore in self._chores.values():
            if time.monotonic() >= chore.next_at:
                chore.run()
                chore.next_at = time.monotonic() + chore.interval_seconds

    def _idle_seconds(self) -> float:
        wakes = [chore.next_at for chore in self._chores.values()]
        if (due_at := self._due.next_at()) is not None:
            wakes.append(max(due_at, self._broker_pause_until))
        return min(LONGEST_WAIT_SECONDS, min(wakes) - time.monotonic())

    # Chores -----------------------------------------------------------------------------------------------------

    def _heartbeat(self) -> None:
        late = time.monotonic() - self._beat_at > EVICT_SECONDS / 3
        self._session.heartbeat()
        self._beat_at = time.monotonic()
        if late:
            return  # if this one was frozen, or PostgreSQL was, the others' silence proves nothing
        for frozen in self._session.evict(EVICT_SECONDS):
            log.warning("took over from a scheduler that was frozen", scheduler=str(frozen))

    def _discover(self) -> None:
        self._catalog.read(self._session)
        self._metrics.pipelines_invalid.set(self._catalog.invalid)
        now = time.monotonic()
        for name, owned in list(self._owned.items()):
            spec = self._catalog.specs.get(name)
            if spec is None:
                self._release([name])
            elif spec.revision != owned.spec.revision:
                log.info("pipeline reconfigured", pipeline=name, revision=spec.revision)
                self._unindex(owned)
                owned.reconfigured(spec, now)
                self._index(owned)
                self._due.set(name, owned.due_at)
        self._chores["share"].next_at = 0.0
        self._database_trouble = None

    def _share(self) -> None:
        """Takes pipelines that nobody owns, up to a fair share, and lets go of a surplus."""
        specs = self._catalog.specs
        quota = math.ceil(len(specs) / max(1, self._session.schedulers_alive()))
        if (surplus := len(self._owned) - quota) > 0:
            idle = [name for name, owned in self._owned.items() if owned.state != "draining"]
            self._release(idle[:surplus])
        elif surplus < 0 and (missing := [name for name in specs if name not in self._owned]):
            unowned = self._session.unowned(missing)
            random.shuffle(unowned)
            for name in self._session.take(unowned[:-surplus]):
                self._own(name)
            self._metrics.pipelines_owned.set(len(self._owned))

    def _own(self, name: str) -> None:
        log.info("pipeline owned", pipeline=name)
        owned = self._owned[name] = Owned(self._catalog.specs[name])
        self._metrics.epochs.labels(*owned.spec.labels).inc()
        self._index(owned)
        self._due.set(name, owned.due_at)

    def _release(self, names: list[str]) -> None:
        """A drain in flight goes on; the next owner waits for its lease."""
        self._session.release(names)
        for name in names:
            log.info("pipeline released", pipeline=name)
            self._unindex(self._owned.pop(name))
            self._due.remove(name)
            self._metrics.forget(name)
        self._metrics.pipelines_owned.set(len(self._owned))

    def _index(self, owned: Owned) -> None:
        self._by_outbox.setdefault(owned.spec.outbox, set()).add(owned.spec.name)

    def _unindex(self, owned: Owned) -> None:
        self._by_outbox[owned.spec.outbox].discard(owned.spec.name)

    def _measure_lag(self) -> None:
        behind = {row.name: row for row in self._session.lag(list(self._owned))} if self._owned else {}
        for name, owned in self._owned.items():
            row, labels = behind.get(name), owned.spec.labels
            self._metrics.lag_messages.labels(*labels).set(row.messages if row else 0)
            self._metrics.lag_seconds.labels(*labels).set((row and row.seconds) or 0)
            self._metrics.oldest_publisher_seconds.labels(*labels).set(row.publisher_seconds if row else 0)

    def _extend(self) -> None:
        try:
            self._session.extend_outboxes()
        except NotConnected as error:
            if error.code != "locked":
                raise
            log.info("partition not made yet, a transaction is in the way", reason=str(error))

    # Events -----------------------------------------------------------------------------------------------------

    def _hear(self, notification: Notification, now: float) -> None:
        match notification.channel:
            case "tide_outbox_notify":
                for name in self._by_outbox.get(notification.payload, ()):
                    owned = self._owned[name]
                    if owned.rang(now):
                        self._due.set(name, owned.due_at)
            case "tide_relay_drain":
                name, epoch, number, outcome, retry_seconds = json.loads(notification.payload)
                self._drain_ended(name, epoch, number, outcome, retry_seconds, now)
            case "tide_relay_config":
                self._chores["discover"].next_at = 0.0

    def _drain_ended(
        self, name: str, epoch: int, number: int, outcome: str, retry_seconds: float | None, now: float
    ) -> None:
        owned = self._owned.get(name)
        if owned is None:
            return
        if owned.state == "claiming":
            self._due.set(name, now)  # the drain of the owner before is over: no need to wait for its lease
        elif owned.is_current(epoch, number):
            owned.ended(outcome, retry_seconds, now)
            if outcome == "again":
                self._metrics.horizon_stalls.labels(*owned.spec.labels).inc()
            self._due.set(name, owned.due_at)

    def _act(self, now: float) -> None:
        if now < self._broker_pause_until:
            return
        due = [self._owned[name] for name in self._due.pop(now)]
        self._claim([owned for owned in due if owned.state in ("claiming", "draining")], now)
        self._look([owned for owned in due if owned.state == "idle"], now)
        for owned in due:
            if owned.state == "waiting" and owned.due_at <= now:
                self._emit(owned, now)
            self._due.set(owned.spec.name, owned.due_at)

    def _claim(self, pipelines: list[Owned], now: float) -> None:
        """Raises the epochs of pipelines that are new here, or whose drain was silent for longer than its lease."""
        if not pipelines:
            return
        rows = self._session.raise_epochs([owned.spec.name for owned in pipelines])
        found = {row.pipeline: row for row in rows}
        for owned in pipelines:
            row = found.get(owned.spec.name)
            if row is None:  # deleted, or taken by another: the next discovery settles it
                owned.held(HEARTBEAT_SECONDS, now)
            elif row.epoch is None:
                owned.held(row.lease_seconds, now)
            else:
                if owned.state == "draining":
                    log.warning("drain lost", pipeline=owned.spec.name, epoch=owned.epoch, drain=owned.number)
                    self._metrics.lost_drains.labels(*owned.spec.labels).inc()
                owned.claimed(row.epoch, row.retry_seconds, now)

    def _look(self, pipelines: list[Owned], now: float) -> None:
        """The timer: one look at the database for all that are due."""
        if not pipelines:
            return
        behind = self._session.behind([owned.spec.name for owned in pipelines])
        for owned in pipelines:
            if owned.spec.name in behind:
                owned.seen_behind(now)
            else:
                owned.seen_idle(now)

    def _emit(self, owned: Owned, now: float) -> None:
        if now < self._broker_pause_until:
            owned.due_at = self._broker_pause_until
            return
        try:
            enqueue_drain(self._broker, owned.next_drain())
        except NotConnected as error:
            self._broker_lost(error)
            owned.due_at = self._broker_pause_until
        else:
            if self._broker_trouble:
                log.info("broker is back")
                self._broker_trouble = None
            self._metrics.wakeups.labels(*owned.spec.labels, owned.cause).inc()
            owned.emitted(now)

    def _broker_lost(self, error: NotConnected) -> None:
        log.error("broker does not take drains", reason=str(error), retry_in_seconds=BROKER_PAUSE_SECONDS)
        self._metrics.broker_errors.labels(error.code).inc()
        self._broker_trouble = str(error)
        self._broker_pause_until = time.monotonic() + BROKER_PAUSE_SECONDS
