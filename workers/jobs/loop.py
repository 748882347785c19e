"""The loop of an engine: claims jobs, has them run, and writes what became of them.

One session: what has ended is finished and more is claimed in one trip. A drain is not the right to work, which a lease
gives, but the task of looking: it is given to the engine, and its thread is free.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg
import structlog

from relay.errors import ConfigError, MigrationError, NotConnected
from relay.jobs.handlers import AnyJob
from relay.models import Drain
from relay.process.retry_pause import RetryPause
from relay.process.unforeseen import log_bug
from relay.settings import Settings
from workers.jobs import claims
from workers.jobs.connections import Connections
from workers.jobs.enrolment import Enrolment
from workers.jobs.held import Held
from workers.jobs.http import KEPT_BYTES
from workers.jobs.measures import Measures
from workers.jobs.queues import Queue
from workers.jobs.runner import SWEEP_SECONDS, Runner
from workers.jobs.signs import Signs
from workers.jobs.store import Done, Store, Visit, bare

log = structlog.get_logger(__name__)

LONGEST_WAIT_SECONDS = 1.0
TOLD_SECONDS = 2.0
"""How long handlers that were told to end at a stop may take."""


class Loop:
    """All of it belongs to the thread of its event loop, but for `call`."""

    def __init__(self, settings: Settings, handlers: Mapping[str, AnyJob], queue_names: Sequence[str]) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._awake = asyncio.Event()
        self._queues = Held()
        self._measures = Measures()
        self._worker: int | None = None
        self._doubtful = False
        self._stopping = False
        self._pause = RetryPause()
        self._grace_until = math.inf
        self._stop_told_at = math.inf
        self._tripped_at = 0.0
        self.connections = Connections(KEPT_BYTES)
        self.runner = Runner(settings.job_slots, settings.job_threads, handlers, settings.job_modules, self._awake.set)
        self._store = Store(settings, self._rang)
        self._enrolment = Enrolment(settings, self._store, handlers, queue_names)
        self.signs = Signs(
            settings,
            rang=lambda outbox: self.call(self._rang, outbox),
            hears_bells=lambda: not self._store.hears_bells,
            changed=lambda pipeline: self.call(self._changed, pipeline),
            cancel=lambda jobs: self.call(self.runner.cancel, jobs),
            late=lambda: self.call(self._doubt),
            lost=lambda worker: self.call(self._lose, worker),
        )

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """For other threads."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(function, *arguments)

    async def run(self) -> None:
        """Until it has stopped, whatever befalls the session."""
        sweep = self._loop.create_task(self._sweep())
        while True:
            try:
                await self._work()
                break
            except (NotConnected, ConfigError, MigrationError) as error:
                log.error("jobs wait for PostgreSQL", reason=str(error), running=self.runner.running)
                if self._stopping and not self.runner.running:
                    break  # others rescue what could not be handed back
                await asyncio.sleep(self._pause.next_seconds())
            except Exception as error:  # noqa: BLE001  the jobs of the process depend on this loop
                log_bug("bug in the engine of jobs", error)
                await asyncio.sleep(1)
            self._doubtful = True
            await self._store.close()
        sweep.cancel()
        self.runner.close()
        self.connections.close()
        await self._store.close()

    async def _work(self) -> None:
        """Returns when the engine has stopped. Raises when the session is lost."""
        while True:
            if self._worker is None:
                self._worker = await self._enrolment.start()
                self.signs.follow(self._worker)
            if self._doubtful:
                await self._resolve_doubts()
            now = time.monotonic()
            if self._stopping and self._may_end(now):
                await self._trip([])
                await self._enrolment.end(self._worker, self._queues.names())
                return
            visits = self._visits(now)
            if visits or self.runner.finish_now(now) or self._queues.have_news():
                await self._trip(visits)
                await asyncio.sleep(0)
            elif late := self._queues.late(now):
                await self._renew(late)
            else:
                await self._sleep(now)

    async def _sleep(self, now: float) -> None:
        """Until something may have to be done."""
        next_at = claims.next_at(self._queues, self.runner, now, self._tripped_at)
        # Not wait_for: it makes a task, and a job that has just come waits for that.
        timer = self._loop.call_later(min(LONGEST_WAIT_SECONDS, max(0.0, next_at - now)), self._awake.set)
        try:
            with self._store.idle(self._awake.set):
                await self._awake.wait()
        finally:
            timer.cancel()
        self._awake.clear()

    @property
    def _listens(self) -> bool:
        """Whether bells are heard: on the session that claims, or by signs."""
        return self._store.hears_bells or self.signs.is_listening

    # What is claimed ---------------------------------------------------------------------------------------------

    def _visits(self, now: float) -> list[Visit]:
        self.runner.measure(now)
        listens = self._listens
        for queue in self._queues:
            queue.ticked(now, listens=listens)
        return [] if self._stopping else claims.visits(self._queues, self.runner, now, self._tripped_at)

    async def _trip(self, visits: Sequence[Visit]) -> None:
        queues = list(self._queues)
        done, self.runner.done = self.runner.done, []
        ends = [end for queue in queues for end in queue.ended]
        bells = [queue for queue in queues if queue.bell and queue.drain is not None]
        self._tripped_at = time.monotonic()
        if not (done or ends or bells or visits):
            return
        assert self._worker is not None
        try:
            trip = await self._store.trip(self._worker, done, ends, bells, visits)
        except psycopg.DataError as error:
            log_bug("PostgreSQL refused to store what jobs said", error, jobs=len(done))
            self.runner.done = [bare(each) for each in done] + self.runner.done
            self._doubtful = True
            await asyncio.sleep(self._pause.next_seconds())
            return
        except BaseException:
            self.runner.done = done + self.runner.done
            raise
        self._pause.reset()
        now = time.monotonic()
        for queue in queues:
            queue.ended = [end for end in queue.ended if end not in ends]
        for queue in bells:
            queue.bell_set()
        self._finished(done, trip.refused, now)
        began_at = time.time()
        for visit, seen in zip(visits, trip.seen, strict=True):
            visit.queue.claimed(len(seen.jobs), visit.want, seen.look, now, listens=self._listens)
            if seen.jobs:
                self.runner.add(seen.jobs, visit.queue)
        # They begin before they are counted.
        found = [(visit.queue.name, seen.jobs) for visit, seen in zip(visits, trip.seen, strict=True) if seen.jobs]
        self._loop.call_soon(self._measures.trip, ends, done, found, began_at, self.runner)

    async def _renew(self, queues: Sequence[Queue]) -> None:
        for queue in queues:
            drain, now = queue.drain, time.monotonic()
            if drain is not None:
                revision = await self._store.renew(drain)
                if queue.drain is drain:
                    queue.answered(revision, now)

    def _finished(self, done: Sequence[Done], refused: int, now: float) -> None:
        """What was written; some of it may have to run again here."""
        for each in done:
            if each.queue.limited:
                each.queue.hungry = True
            if each.ended.retry_seconds is not None and each.ended.outcome in ("r", "b"):
                each.queue.look_within(each.ended.retry_seconds + 0.002, now)
        if refused:
            log.warning("ends of jobs were refused: other workers have them", jobs=refused)
            self._doubtful = True

    # Events ------------------------------------------------------------------------------------------------------

    def take(self, queue: Queue, drain: Drain) -> None:
        self._queues.put(queue)
        queue.take(drain, time.monotonic())
        if self._stopping:
            queue.end("more")
        self._awake.set()

    def _forget(self, queue: Queue) -> None:
        """It was dropped: a claim of it would be refused, and with it the trip that has the claims of all others."""
        log.info("a job queue was dropped: this worker claims from it no more", queue=queue.name)
        self._queues.remove(queue)

    def _rang(self, outbox: str) -> None:
        if self._queues.rang(outbox):
            self._awake.set()

    def _changed(self, pipeline: str) -> None:
        """A queue was paused, changed or dropped: its owner must not wait for the drain."""
        if self._queues.changed(pipeline):
            self._awake.set()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            self.runner.sweep(now)
            if self._stopping and now >= self._grace_until and self._stop_told_at == math.inf:
                self._stop_told_at = now
                self.runner.tell_all("stopping")
            if self._stopping:
                self._awake.set()

    # Doubts ------------------------------------------------------------------------------------------------------

    def _doubt(self) -> None:
        self._doubtful = True
        self._awake.set()

    def _lose(self, worker: int) -> None:
        """Others took this process for dead, and its jobs are theirs."""
        if worker == self._worker:
            log.error(
                "this worker was taken for dead: what it ran is dropped, and it starts as a new one", worker=worker
            )
            self._worker = None
            self.runner.keep(())
            self._awake.set()

    async def _resolve_doubts(self) -> None:
        """An answer was lost, or this process was silent for long: asks which leases and queues there are."""
        assert self._worker is not None
        known = self.runner.leases()
        kept = await self._enrolment.kept(self._worker, known)
        self._doubtful = False
        if gone := set(known) - kept:
            log.warning(
                "jobs were given to other workers, for this one was silent: they are dropped here", leases=len(gone)
            )
            # What was claimed since then is known to no answer yet: nothing was, for there is one session.
            self.runner.keep(kept)
        there = await self._store.value("engine_queues", queues=[each.outbox_id for each in self._queues])
        for queue in self._queues:
            queue.hungry = True
            if queue.outbox_id not in there:
                self._forget(queue)

    # The end -----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        if not self._stopping:
            self._stopping = self.signs.stopping = True
            self._grace_until = time.monotonic() + self._settings.job_grace_seconds
            self.runner.hand_back_waiting()
            for queue in self._queues:
                if queue.drain is not None:
                    queue.end("more")
            self._awake.set()

    def _may_end(self, now: float) -> bool:
        if self.runner.running and now - self._stop_told_at >= TOLD_SECONDS:
            self.runner.give_up_all()
        return not self.runner.running
