"""The scheduler's loop: wait for a notification or the next due time, then act. One thread, one PostgreSQL session.

When the session is lost, so is every pipeline; the loop forgets all it knew and starts again with a new session.
"""

import time
from collections import Counter

import dramatiq
import structlog

from relay.errors import ConfigError, NotConnected
from relay.process.metrics.scheduler import SchedulerMetrics
from relay.process.retry_pause import RetryPause
from relay.process.stop import Stop
from relay.settings import Settings
from scheduler import inboxes, job_chores, leases, partitions, schedules, streams
from scheduler.catalog import Catalog
from scheduler.chores import Chore, Chores, Pieces, pages
from scheduler.dispatch import Dispatch
from scheduler.heard import Heard
from scheduler.http import Health
from scheduler.inboxes import Inboxes
from scheduler.job_chores import JobChores
from scheduler.ownership import Ownership
from scheduler.partitions import Partitions
from scheduler.schedules import Schedules
from scheduler.session import Session
from scheduler.streams import Streams

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 1.0
# Far above the longest wait inside the loop, which is an enqueue to a broker that does not answer.
EVICT_SECONDS = 15.0
MEASURE_SECONDS = 5.0
OFFSETS_SECONDS = 60.0
LONGEST_WAIT_SECONDS = 1.0
# Of one question about all of them, which takes some milliseconds.
OUTBOXES = 250
HOLDERS = 5
PIPELINES = 500
# Anyone can say that a configuration has changed: the first time it is read at once.
DISCOVERY_PACE_SECONDS = 0.25


class Scheduler:
    """Owns its share of the pipelines and emits their drains until it is asked to stop."""

    def __init__(self, settings: Settings, broker: dramatiq.Broker, metrics: SchedulerMetrics, stop: Stop) -> None:
        self._settings = settings
        self._metrics = metrics
        self._stop = stop
        self._dispatch = Dispatch(broker, metrics)
        self._database_trouble: str | None = "not connected to PostgreSQL yet"
        self._pipelines_owned = 0
        self._started_at = self._beat_at = self._moved_at = self._maintained_at = time.monotonic()
        self._discovered_at = 0.0
        metrics.loop_age_seconds.set_function(lambda: time.monotonic() - self._beat_at)
        metrics.maintenance_age_seconds.set_function(lambda: time.monotonic() - self._maintained_at)
        # Several statements in a row may take all their time, and connecting too.
        self._stuck_seconds = 3 * settings.statement_timeout_seconds + settings.connect_timeout_seconds + EVICT_SECONDS

    def run(self) -> None:
        """Returns when `stop` is set. Raises ConfigError or MigrationError if it cannot start at all."""
        pause, worked_before = RetryPause(), False
        while not self._stop.is_set():
            self._moved_at = time.monotonic()
            try:
                with Session(self._settings) as session:
                    worked_before = True
                    pause.reset()
                    self._serve(session)
            except (NotConnected, ConfigError) as error:
                if isinstance(error, ConfigError) and not worked_before:
                    raise
                log.error("session lost, and every pipeline with it", reason=str(error))
                self._metrics.database_losses.inc()
                self._database_trouble = str(error)
                self._stop.wait(pause.next_seconds())

    def health(self) -> Health:
        """How it is; safe from any thread."""
        now = time.monotonic()
        failures, troubles = [], [reason for reason in (self._database_trouble, self._dispatch.trouble) if reason]
        if now - self._moved_at > self._stuck_seconds:
            failures.append(f"the loop has been silent for {now - self._moved_at:.0f} seconds")
        elif not self._database_trouble and now - self._beat_at > EVICT_SECONDS:
            troubles.append(f"PostgreSQL has not answered the loop for {now - self._beat_at:.0f} seconds")
        return Health(self._pipelines_owned, now - self._started_at, tuple(failures), tuple(troubles))

    def _serve(self, session: Session) -> None:
        log.info("scheduler started", scheduler=str(session.scheduler_id))
        leases.remember(session)
        self._session = session
        self._dispatch.join(str(session.scheduler_id))
        self._groups_measured: set[str] = set()
        self._catalog = Catalog(self._settings.relay_group_id, session.clock)
        self._ownership = Ownership(session, self._dispatch, self._metrics)
        self._schedules = Schedules(session)
        self._jobs = JobChores(session, self._metrics, self._settings.job_lease_seconds)
        self._inboxes = Inboxes(session, self._metrics)
        self._streams = Streams(session, self._metrics)
        self._partitions = Partitions(session)
        self._discovery = Chore(self._settings.discovery_interval_seconds, self._discover)
        self._sharing = Chore(HEARTBEAT_SECONDS, self._share)
        chores = [
            Chore(HEARTBEAT_SECONDS, self._heartbeat),
            self._discovery,
            self._sharing,
            Chore(MEASURE_SECONDS, self._dispatch.check_broker),
            Chore(MEASURE_SECONDS, self._measure),
            Chore(partitions.LOOK_SECONDS, self._partitions.look),
            Chore(OFFSETS_SECONDS, self._look_at_offsets),
            Chore(job_chores.RESCUE_SECONDS, lambda: self._jobs.rescue(self._ownership.queues())),
            Chore(schedules.LOOK_SECONDS, lambda: self._schedules.fire(self._ownership.queues())),
            Chore(job_chores.MEASURE_SECONDS, lambda: self._jobs.measure(self._ownership.queues())),
            Chore(inboxes.MEASURE_SECONDS, self._inboxes.measure),
            Chore(streams.MEASURE_SECONDS, self._streams.measure),
            Chore(self._settings.maintenance_interval_seconds, self._maintain),
        ]
        self._chores = Chores(chores, self._move)
        try:
            while not self._stop.is_set():
                self._turn()
            log.info("scheduler stopping")
        finally:
            self._ownership.forget()
            self._jobs.forget()
            self._inboxes.forget()
            self._streams.forget()
            self._metrics.pipelines_unowned.clear()
            self._pipelines_owned = 0

    def _turn(self) -> None:
        """What is due, or a piece of it; then a wait for the next."""
        self._chores.turn()
        self._move()
        self._ownership.act()
        self._pipelines_owned = len(self._ownership)
        self._hear(self._session.wait(self._stop, self._idle_seconds()))

    def _move(self) -> None:
        self._moved_at = time.monotonic()

    def _hear(self, heard: Heard) -> None:
        if heard.reconfigured:
            self._discovery.hasten(self._discovered_at + DISCOVERY_PACE_SECONDS)
        for channel, times in heard.refused.items():
            self._metrics.notifications_ignored.labels(channel).inc(times)
        self._partitions.moved(heard.rings)
        self._partitions.moved(self._ownership.outboxes(heard.ended))
        self._ownership.hear(heard)

    def _idle_seconds(self) -> float:
        wake_at = self._chores.next_at()
        if (due_at := self._ownership.next_at()) is not None:
            wake_at = min(wake_at, due_at)
        return max(0.0, min(LONGEST_WAIT_SECONDS, wake_at - time.monotonic()))

    # Chores -----------------------------------------------------------------------------------------------------

    def _heartbeat(self) -> None:
        late = time.monotonic() - self._beat_at > EVICT_SECONDS / 3
        self._session.heartbeat(self._ownership.measures.waiting(), self._dispatch.failure)
        self._beat_at = time.monotonic()
        if late:
            return  # if this one was frozen, or PostgreSQL was, the others' silence proves nothing
        for frozen in self._session.evict(EVICT_SECONDS):
            log.warning("took over from a scheduler that was frozen", scheduler=str(frozen))

    def _discover(self) -> Pieces:
        # A migration says so on the channel of configurations: nothing is read from a schema that means something else.
        self._session.require_schema()
        self._dispatch.serve(self._session.identity())
        self._discovered_at = time.monotonic()
        for _ in self._catalog.read(self._session):
            yield
        self._metrics.pipelines_invalid.set(self._catalog.invalid)
        yield from self._ownership.follow(self._catalog.take_changed(), self._catalog.specs)
        self._sharing.hasten(0.0)

    def _share(self) -> Pieces:
        if self._catalog.is_complete:
            yield from self._ownership.share(self._catalog.specs, self._session.schedulers_alive())
            self._database_trouble = None

    def _measure(self) -> Pieces:
        self._ownership.measures.drains_waiting()
        self._measure_maintenance()
        yield from self._measure_unowned()
        yield from self._ownership.measures.lag()

    def _measure_maintenance(self) -> None:
        try:
            if (seconds := self._session.maintained_seconds_ago()) is not None:
                self._maintained_at = max(self._started_at, time.monotonic() - seconds)
        except ConfigError:
            pass  # a right is missing: `_maintain` says so

    def _measure_unowned(self) -> Pieces:
        """Of every group: no other scheduler would notice a pipeline whose group is not served."""
        groups = dict(self._catalog.groups)
        unowned: list[str] = []
        for names in pages([name for name in groups if name not in self._ownership], PIPELINES):
            unowned += self._session.unowned(names)
            yield
        counted = Counter(groups[name] for name in unowned)
        gauge = self._metrics.pipelines_unowned
        for group in {"", self._settings.relay_group_id, *groups.values()}:
            gauge.labels(group).set(counted[group])
        for group in self._groups_measured - set(groups.values()) - {"", self._settings.relay_group_id}:
            gauge.remove(group)
        self._groups_measured = set(groups.values())

    def _look_at_offsets(self) -> Pieces:
        """A database that was copied without its sequences gives ids that groups have passed: no error would say so."""
        for page in self._session.outbox_pages("outbox_page_ahead", OUTBOXES):
            yield
            for row in self._session.offsets_ahead(page.ahead) if page.ahead else ():
                log.error(
                    "new messages are passed over: the offset is above the last id of the outbox; run relay restored",
                    outbox=row.outbox,
                    consumer_group=row.consumer_group,
                    offset=row.offset_id,
                    last_id=row.last_id,
                )

    def _maintain(self) -> Pieces:
        """Asks a worker to remove what is old, if it is our turn: a message that is lost costs one turn.

        A role that lacks a right to it still delivers.
        """
        try:
            self._take_turn(self._settings.maintenance_interval_seconds)
            yield
            yield from self._measure_holds()
        except ConfigError as error:
            log.error("nothing is removed, whatever its age", reason=str(error))

    def _take_turn(self, interval_seconds: float) -> None:
        if time.monotonic() >= self._dispatch.paused_until and self._session.take_turn(interval_seconds):
            self._dispatch.maintain(2 * interval_seconds)

    def _measure_holds(self) -> Pieces:
        holds = []
        for page in self._session.outbox_pages("outbox_page_unsettled", OUTBOXES):
            yield
            for names in pages(page.unsettled, HOLDERS):
                holds += self._session.holds(names)
                yield
        self._metrics.hold_seconds_left.clear()
        for hold in holds:
            self._metrics.hold_seconds_left.labels(hold.outbox, hold.consumer_group).set(max(0.0, hold.seconds_left))
