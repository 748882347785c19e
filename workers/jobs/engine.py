"""The engine of a worker process: claims jobs, has them run, and writes what became of them.

One loop in a thread of its own, one session: what has ended is finished and more is claimed in one trip. A drain is not
the right to work, which a lease gives, but the task of looking: it is given to the engine, and its thread is free.
"""

import asyncio
import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg
import structlog

import relay
from relay.drains.lease import DrainStart
from relay.errors import ConfigError, MigrationError, NotConnected
from relay.jobs.errors import JobError
from relay.jobs.handlers import AnyJob
from relay.models import Drain
from relay.pipelines.jobs import parse_jobs
from relay.process.retry_pause import RetryPause
from relay.process.unforeseen import log_bug
from relay.settings import Settings
from workers.jobs.connections import Connections
from workers.jobs.hand_off import HandOff
from workers.jobs.http import KEPT_BYTES, HttpSender
from workers.jobs.measures import Measures
from workers.jobs.queues import Queue
from workers.jobs.runner import SWEEP_SECONDS, Runner
from workers.jobs.signs import Signs
from workers.jobs.store import Store, Visit, bare

log = structlog.get_logger(__name__)

PACE_SECONDS = 0.008
"""Between trips that only take a few jobs more."""
LONGEST_WAIT_SECONDS = 1.0
TOLD_SECONDS = 2.0
"""How long handlers that were told to end at a stop may take."""


class Engine:
    """`take`, `stop` and `close` are for other threads."""

    def __init__(self, settings: Settings, handlers: Mapping[str, AnyJob]) -> None:
        self._settings = settings
        self._handlers = handlers
        self._queues: dict[str, Queue] = {}
        self._by_outbox: dict[str, Queue] = {}
        self._passed_on: dict[str, tuple[float, float]] = {}
        self._measures = Measures()
        self._worker: int | None = None
        self._doubtful = False
        self._stopping = False
        self._pause = RetryPause()
        self._grace_until = math.inf
        self._stop_told_at = math.inf
        self._tripped_at = 0.0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job-engine", daemon=True)
        self._thread.start()
        self._ready.wait()

    # For other threads -------------------------------------------------------------------------------------------

    def serves(self, queue: str) -> bool:
        """Whether this process runs jobs of that queue."""
        return self._settings.job_queues == ("*",) or queue in self.queue_names

    @property
    def queue_names(self) -> list[str]:
        """Those that it was given, or those of its handlers."""
        given = self._settings.job_queues
        return sorted(given or {handler.options["queue"] or "" for handler in self._handlers.values()})

    def take(self, drain: Drain, start: DrainStart) -> None:
        """Gives it the task of looking at a queue. Raises ConfigError if its configuration cannot be used."""
        name = start.outbox.removeprefix("jobs/")
        known = self._queues.get(name)
        if known is None or known.revision != start.revision or known.outbox_id != start.outbox_id:
            assert start.outbox_id is not None
            assert start.group_id is not None
            config = parse_jobs(start.config, resolved=True)
            where = f"job queue {name!r}"
            http = HttpSender(config.pipeline.http, self._connections, where)
            known = Queue(
                name, start.outbox_id, start.group_id, drain.pipeline, start.revision, self._ways(name), http,
                HandOff(config, name),
            )  # fmt: skip
        self._call(self._take, known, drain)

    def passed_on(self, queue: str) -> float:
        """After how many seconds another process shall be asked about a queue that this one does not serve."""
        now = time.monotonic()
        pause, until = self._passed_on.get(queue, (0.0, 0.0))
        pause = min(1.0, 2 * pause) if now < until else 0.01
        self._passed_on[queue] = (pause, now + 5)
        return pause

    def stop(self) -> None:
        """Begins the end: nothing more is claimed, what was not begun goes back, the rest has its grace."""
        self._call(self._begin_stop)

    def close(self) -> None:
        """Waits for the end that `stop` began."""
        self._thread.join(self._settings.job_grace_seconds + TOLD_SECONDS + 2 * self._settings.connect_timeout_seconds)
        self._signs.close()

    @property
    def stuck(self) -> int:
        """How many slots are held by handlers that do not end."""
        return self._runner.stuck

    @property
    def has_room(self) -> bool:
        """Whether a job could begin now."""
        return any(slots.room > 0 for slots in self._runner.slots.values())

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(function, *arguments)

    # The loop ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._awake = asyncio.Event()
        settings = self._settings
        self._connections = Connections(KEPT_BYTES)
        self._runner = Runner(
            settings.job_slots, settings.job_threads, self._handlers, settings.job_modules, self._awake.set
        )
        self._store = Store(settings)
        self._signs = Signs(
            settings,
            rang=lambda outbox: self._call(self._rang, outbox),
            changed=lambda pipeline: self._call(self._changed, pipeline),
            cancel=lambda jobs: self._call(self._runner.cancel, jobs),
            late=lambda: self._call(self._doubt),
            lost=lambda worker: self._call(self._lose, worker),
        )
        self._ready.set()
        sweep = self._loop.create_task(self._sweep())
        while True:
            try:
                await self._work()
                break
            except (NotConnected, ConfigError, MigrationError) as error:
                log.error("jobs wait for PostgreSQL", reason=str(error), running=self._runner.running)
                if self._stopping and not self._runner.running:
                    break  # others rescue what could not be handed back
                await asyncio.sleep(self._pause.next_seconds())
            except Exception as error:  # noqa: BLE001  the jobs of the process depend on this loop
                log_bug("bug in the engine of jobs", error)
                await asyncio.sleep(1)
            self._doubtful = True
            await self._store.close()
        sweep.cancel()
        self._runner.close()
        self._connections.close()
        await self._store.close()

    async def _work(self) -> None:
        """Returns when the engine has stopped. Raises when the session is lost."""
        while True:
            if self._worker is None:
                await self._start_worker()
            if self._doubtful:
                await self._resolve_doubts()
            now = time.monotonic()
            if self._stopping and self._may_end(now):
                await self._trip([])
                await self._end()
                return
            visits = self._visits(now)
            if (
                visits
                or self._runner.finish_now(now)
                or any(queue.ended or queue.bell for queue in self._queues.values())
            ):
                await self._trip(visits)
                await asyncio.sleep(0)
            elif late := [q for q in self._queues.values() if q.drain is not None and now >= q.renew_at]:
                await self._renew(late)
            else:
                await self._sleep(now)

    async def _sleep(self, now: float) -> None:
        """Until something may have to be done."""
        next_at = min((queue.next_at() for queue in self._queues.values()), default=math.inf)
        if any(queue.hungry for queue in self._queues.values()):
            next_at = min(
                next_at, max(now, self._tripped_at) + PACE_SECONDS if self._has_room() else now + SWEEP_SECONDS
            )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._awake.wait(), min(LONGEST_WAIT_SECONDS, max(0.0, next_at - now)))
        self._awake.clear()

    def _has_room(self) -> bool:
        return any(queue.hungry and self._runner.room(queue) > 0 for queue in self._queues.values())

    # What is claimed ---------------------------------------------------------------------------------------------

    def _visits(self, now: float) -> list[Visit]:
        """The claims of the next trip, in the order of the queues' numbers, as locks must be taken."""
        self._runner.measure(now)
        listens = self._signs.is_listening
        for queue in self._queues.values():
            queue.ticked(now, listens=listens)
        if self._stopping:
            return []
        hungry = [queue for queue in self._queues.values() if queue.hungry and not queue.bell]
        visits = []
        for queue in sorted(hungry, key=lambda queue: queue.outbox_id):
            room = self._runner.room(queue)
            # Several queues share what there is; the next trip follows at once.
            want = min(1000, room if len(hungry) == 1 else math.ceil(room / len(hungry)))
            if want <= 0:
                queue.waits_for_room(now)
            elif self._runner.is_low(queue) or now - self._tripped_at >= PACE_SECONDS:
                visits.append(Visit(queue, want, queue.armed))
        return visits

    async def _trip(self, visits: Sequence[Visit]) -> None:
        queues = list(self._queues.values())
        done, self._runner.done = self._runner.done, []
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
            self._runner.done = [bare(each) for each in done] + self._runner.done
            self._doubtful = True
            return
        except BaseException:
            self._runner.done = done + self._runner.done
            raise
        self._pause.reset()
        now = time.monotonic()
        for queue in queues:
            queue.ended = [end for end in queue.ended if end not in ends]
        for queue in bells:
            queue.bell_set()
        for each in ends:
            self._measures.drained(each)
        self._finished(done, trip.refused, now)
        for visit, seen in zip(visits, trip.seen, strict=True):
            visit.queue.claimed(len(seen.jobs), visit.want, seen.look, now, listens=self._signs.is_listening)
            if seen.jobs:
                self._measures.claimed(visit.queue.name, seen.jobs)
                self._runner.add(seen.jobs, visit.queue)
        self._measures.slots(self._runner)

    async def _renew(self, queues: Sequence[Queue]) -> None:
        for queue in queues:
            drain, now = queue.drain, time.monotonic()
            if drain is not None:
                renewed = await self._store.renew(drain)
                if queue.drain is drain and renewed:
                    queue.renewed(now)
                elif queue.drain is drain:
                    queue.lost()

    def _finished(self, done: Sequence[Any], refused: int, now: float) -> None:
        """What was written; some of it may have to run again here."""
        self._measures.ended(done)
        for each in done:
            if each.queue.limited:
                each.queue.hungry = True
            if each.ended.retry_seconds is not None and each.ended.outcome in ("r", "b"):
                each.queue.look_within(each.ended.retry_seconds + 0.002, now)
        if refused:
            log.warning("ends of jobs were refused: other workers have them", jobs=refused)
            self._doubtful = True

    # Events ------------------------------------------------------------------------------------------------------

    def _ways(self, queue: str) -> set[Any]:
        made = (handler for handler in self._handlers.values() if handler.options["queue"] == queue)
        return {
            "process" if each.isolation == "process" else "loop" if each.is_coroutine else "thread" for each in made
        }

    def _take(self, queue: Queue, drain: Drain) -> None:
        before = self._queues.get(queue.name)
        if before is not None and before is not queue:
            queue.look_at, queue.worked_at, queue.ended = before.look_at, before.worked_at, before.ended
            if before.hand_off is not None:
                threading.Thread(target=before.hand_off.close, daemon=True).start()
        self._queues[queue.name] = self._by_outbox[f"jobs/{queue.name}"] = queue
        queue.take(drain, time.monotonic())
        if self._stopping:
            queue.end("more")
        self._awake.set()

    def _rang(self, outbox: str) -> None:
        for queue in [self._by_outbox.get(outbox)] if outbox else list(self._queues.values()):
            if queue is not None and queue.drain is not None:
                queue.rang()
                self._awake.set()

    def _changed(self, pipeline: str) -> None:
        """A queue was paused, changed or dropped: its owner must not wait for the drain."""
        for queue in self._queues.values():
            if queue.drain is not None and pipeline in ("", queue.pipeline):
                queue.end("more")
                self._awake.set()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            self._runner.sweep(now)
            if self._stopping and now >= self._grace_until and self._stop_told_at == math.inf:
                self._stop_told_at = now
                self._runner.tell_all("stopping")
            if self._stopping:
                self._awake.set()

    # Life --------------------------------------------------------------------------------------------------------

    async def _start_worker(self) -> None:
        for queue in self.queue_names:
            if queue != "*" and await self._store.value("engine_queue_is_there", queue=queue) is None:
                await self._create(queue)
        await self._declare()
        slots = self._settings.job_slots + self._settings.job_threads
        self._worker = await self._store.value(
            "engine_start", host=socket.gethostname(), pid=os.getpid(), queues=self.queue_names, slots=slots,
            version=relay.__version__,
        )  # fmt: skip
        assert self._worker is not None
        self._signs.follow(self._worker)
        log.info(
            "ready to run jobs", worker=self._worker, queues=",".join(self.queue_names), handlers=len(self._handlers)
        )

    async def _create(self, queue: str) -> None:
        try:
            if await self._store.value("engine_queue_create", queue=queue):
                log.info("job queue created", queue=queue)
        except ConfigError as error:
            log.error("a job queue is missing, and this role cannot create it", queue=queue, reason=str(error))

    async def _declare(self) -> None:
        try:
            if changed := await self._store.declare(self._handlers.values()):
                log.info("schedules of handlers were set", schedules=",".join(changed))
        except (ConfigError, JobError) as error:
            log.error("the schedules of handlers are not set", reason=str(error))

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
            self._runner.keep(())
            self._awake.set()

    async def _resolve_doubts(self) -> None:
        """An answer was lost, or this process was silent for long: asks which leases there are."""
        known = self._runner.leases()
        await self._store.value("engine_release_unknown", worker=self._worker, known=known)
        kept = await self._store.value("engine_leases", worker=self._worker, known=known)
        self._doubtful = False
        if gone := set(known) - set(kept):
            log.warning(
                "jobs were given to other workers, for this one was silent: they are dropped here", leases=len(gone)
            )
            # What was claimed since then is known to no answer yet: nothing was, for there is one session.
            self._runner.keep(set(kept))
        for queue in self._queues.values():
            queue.hungry = True

    # The end -----------------------------------------------------------------------------------------------------

    def _begin_stop(self) -> None:
        if not self._stopping:
            self._stopping = self._signs.stopping = True
            self._grace_until = time.monotonic() + self._settings.job_grace_seconds
            self._runner.hand_back_waiting()
            for queue in self._queues.values():
                if queue.drain is not None:
                    queue.end("more")
            self._awake.set()

    def _may_end(self, now: float) -> bool:
        if self._runner.running and now - self._stop_told_at >= TOLD_SECONDS:
            self._runner.give_up_all()
        return not self._runner.running

    async def _end(self) -> None:
        await self._store.value("engine_stop", worker=self._worker)
        for queue in self._queues.values():
            await self._store.value("engine_ring", outbox=f"jobs/{queue.name}")
        log.info("no job runs here any more", worker=self._worker)
