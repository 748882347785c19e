"""Runs what was claimed: each job in the way that its handler needs, as soon as a slot of that way is free."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from functools import partial

import structlog

from relay.jobs.handlers import AnyJob
from relay.jobs.models import Claimed, Ended
from relay.process.unforeseen import log_bug
from workers.jobs.children import Children
from workers.jobs.queues import Queue
from workers.jobs.run import (
    HANDED_BACK,
    Reason,
    Run,
    interrupted,
    run_coroutine,
    run_function,
    run_request,
    settle,
    unforeseen,
)
from workers.jobs.slots import Slots, Way
from workers.jobs.store import Done
from workers.jobs.threads import Threads
from workers.jobs.unknown import Unknown

log = structlog.get_logger(__name__)

FINISH_SECONDS = 0.01
FINISH_MANY = 500
SWEEP_SECONDS = 0.25
STUCK_SECONDS = 5.0
"""What does not end so long after it was told to is written off."""
IMPORT_SECONDS = 60.0
"""How long a process for a handler may take to begin."""
HAND_OFF_THREADS = 2
MOST_HANDED_OFF = 1000


class Runner:
    """All methods belong to the loop. `wake` is called when a trip is worth while."""

    def __init__(
        self, slots: int, threads: int, handlers: Mapping[str, AnyJob], modules: Sequence[str], wake: Callable[[], None]
    ) -> None:
        self._handlers = handlers
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self.slots: dict[Way, Slots] = {
            "loop": Slots(slots),
            "thread": Slots(threads),
            "process": Slots(threads),
            "hand_off": Slots(MOST_HANDED_OFF),
        }
        self._waiting: dict[Way, deque[tuple[Claimed, Queue]]] = {way: deque() for way in self.slots}
        self._runs: set[Run] = set()
        self.done: list[Done] = []
        self.done_since = 0.0
        self.unknown = Unknown()
        self._threads = Threads(threads, "job")
        self._hand_off_threads = Threads(HAND_OFF_THREADS, "job-hand-off")
        self._process_threads = Threads(threads, "job-process")
        self._children = Children(modules)

    # What there is ----------------------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        return len(self._runs)

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def stuck(self) -> int:
        return sum(slots.stuck for slots in self.slots.values())

    def room(self, queue: Queue) -> int:
        """How many jobs of a queue are worth claiming."""
        return max(0, min(self.slots[way].room for way in queue.ways)) if queue.ways else self.slots["loop"].room

    def is_low(self, queue: Queue) -> bool:
        return all(self.slots[way].is_low for way in queue.ways)

    def measure(self, now: float) -> None:
        for slots in self.slots.values():
            slots.measure(now)

    def leases(self) -> list[int]:
        """Those that have a job here."""
        known = {run.claimed.lease_id for run in self._runs}
        known |= {done.claimed.lease_id for done in self.done}
        return list(known.union(claimed.lease_id for jobs in self._waiting.values() for claimed, _ in jobs))

    # Beginning --------------------------------------------------------------------------------------------------

    def add(self, jobs: Iterable[Claimed], queue: Queue) -> None:
        """Begins them, now or as soon as there is a slot."""
        for claimed in jobs:
            way = self._way(claimed)
            if way is None:
                self._finish(claimed, queue, self.unknown.handed_back(claimed), 0)
                continue
            queue.ways.add(way)
            self._waiting[way].append((claimed, queue))
            self.slots[way].waiting += 1
        for way in self.slots:
            self._begin_next(way)

    def _way(self, claimed: Claimed) -> Way | None:
        if claimed.kind == "p":
            handler = self._handlers.get(claimed.name)
            if handler is None:
                return None
            if handler.isolation == "process":
                return "process"
            return "loop" if handler.is_coroutine else "thread"
        return {"h": "loop", "d": "hand_off", "c": "hand_off"}.get(claimed.kind)  # type: ignore[return-value]

    def _begin_next(self, way: Way) -> None:
        slots, waiting = self.slots[way], self._waiting[way]
        if not waiting:
            return
        if way == "hand_off":
            self._begin_hand_off(slots, waiting)
            return
        while waiting and slots.free > 0:
            claimed, queue = waiting.popleft()
            slots.waiting -= 1
            self._begin(claimed, queue, way, slots)

    def _begin(self, claimed: Claimed, queue: Queue, way: Way, slots: Slots) -> None:
        now = time.monotonic()
        run = Run(claimed, queue, way, now, now + claimed.timeout_seconds)
        slots.running += 1
        self._runs.add(run)
        if claimed.kind == "h":
            run.task = self._loop.create_task(self._on_loop(run, run_request))
            return
        run.handler = self._handlers[claimed.name]
        if way == "process":
            run.ends_at += IMPORT_SECONDS
            self._process_threads.submit(lambda: self._in_process(run))
            return
        if way == "loop":
            run.task = self._loop.create_task(self._on_loop(run, run_coroutine))
        else:
            self._threads.submit(lambda: self._in_thread(run))

    async def _on_loop(self, run: Run, body: Callable[[Run], Awaitable[Ended]]) -> None:
        run.has_begun = True
        self._ended(run, run.interrupted() if run.reason else await body(run))

    def _in_thread(self, run: Run) -> None:
        ended = run.interrupted() if run.reason else run_function(run)
        self._tell_loop(self._ended, run, ended)

    def _in_process(self, run: Run) -> None:
        try:
            ended = run.interrupted() if run.reason else self._children.run(run)
        except Exception as error:  # noqa: BLE001
            log_bug("bug in running a job in a process", error, job=run.claimed.uuid)
            ended = unforeseen(run.claimed, error)
        self._tell_loop(self._ended, run, ended)

    def _begin_hand_off(self, slots: Slots, waiting: "deque[tuple[Claimed, Queue]]") -> None:
        """All that waits, in one batch for each queue."""
        batches: dict[int, list[Run]] = {}
        now = time.monotonic()
        while waiting:
            claimed, queue = waiting.popleft()
            run = Run(claimed, queue, "hand_off", now, float("inf"))
            self._runs.add(run)
            batches.setdefault(queue.outbox_id, []).append(run)
        slots.waiting = 0
        for runs in batches.values():
            slots.running += len(runs)
            self._hand_off_threads.submit(partial(self._hand_off, runs))

    def _hand_off(self, runs: list[Run]) -> None:
        sender = runs[0].queue.hand_off
        try:
            assert sender is not None
            ended = [
                settle(run.claimed, each)
                for run, each in zip(runs, sender.send_many([r.claimed for r in runs]), strict=True)
            ]
        except Exception as error:  # noqa: BLE001
            log_bug("bug in handing off jobs", error, queue=runs[0].queue.name)
            ended = [unforeseen(run.claimed, error) for run in runs]
        self._tell_loop(self._all_ended, runs, ended)

    def _tell_loop(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: the job was handed back
            self._loop.call_soon_threadsafe(function, *arguments)

    # Ending -----------------------------------------------------------------------------------------------------

    def _all_ended(self, runs: list[Run], ended: list[Ended]) -> None:
        for run, each in zip(runs, ended, strict=True):
            self._ended(run, each)

    def _ended(self, run: Run, ended: Ended) -> None:
        slots = self.slots[run.way]
        if run.over:
            slots.stuck -= 1
            self._begin_next(run.way)
            return
        self._take_out(run, slots)
        if run.reason != "lost":
            self._finish(run.claimed, run.queue, ended, run.began_at)
        self._begin_next(run.way)
        if (not slots.waiting and slots.running <= slots.limit // 2) or len(self.done) >= FINISH_MANY:
            self._wake()

    def _take_out(self, run: Run, slots: Slots) -> None:
        run.over = True
        self._runs.discard(run)
        slots.running -= 1
        slots.ended += 1

    def _finish(self, claimed: Claimed, queue: Queue, ended: Ended, began_at: float) -> None:
        ms = int((time.monotonic() - began_at) * 1000) if began_at else 0
        if not self.done:
            self.done_since = time.monotonic()
            self._loop.call_later(FINISH_SECONDS, self._wake)
        self.done.append(Done(claimed, queue, ms, ended))

    def finish_now(self, now: float) -> bool:
        """Whether what has ended is worth a trip of its own."""
        done = len(self.done)
        return done >= FINISH_MANY or (done > 0 and (not self._runs or now - self.done_since >= FINISH_SECONDS))

    # Ending what does not end by itself --------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Timeouts, and what does not end though it was told to."""
        for run in list(self._runs):
            if run.reason is None:
                if now > run.ends_at:
                    run.tell("timeout")
            elif now - run.told_at > STUCK_SECONDS:
                self._give_up(run)

    def _give_up(self, run: Run) -> None:
        slots = self.slots[run.way]
        log.error("a handler does not end, though its time is over: its slot is lost until it does",
                  job=run.claimed.uuid, name=run.claimed.name, queue=run.queue.name, reason=run.reason)  # fmt: skip
        self._take_out(run, slots)
        slots.stuck += 1
        if run.reason != "lost":
            self._finish(run.claimed, run.queue, run.interrupted(), run.began_at)

    def cancel(self, jobs: Iterable[tuple[int, int]]) -> None:
        """An operator wants these (lease, id) to end."""
        wanted = set(jobs)
        for run in list(self._runs):
            if (run.claimed.lease_id, run.claimed.id) in wanted:
                run.tell("cancelled")
        self._drop_waiting(lambda claimed: (claimed.lease_id, claimed.id) in wanted, "cancelled")

    def keep(self, leases: Container[int]) -> None:
        """Jobs of other leases are other workers' now: what becomes of them here is forgotten."""
        for run in list(self._runs):
            if run.claimed.lease_id not in leases:
                run.tell("lost")
        self._drop_waiting(lambda claimed: claimed.lease_id not in leases, "lost")
        self.done = [done for done in self.done if done.claimed.lease_id in leases]

    def hand_back_waiting(self) -> None:
        """What was not begun goes to other workers; it was no attempt."""
        self._drop_waiting(lambda _: True, "stopping")

    def tell_all(self, reason: Reason) -> None:
        for run in list(self._runs):
            run.tell(reason)

    def give_up_all(self) -> None:
        """The end of the process ends what still runs."""
        for run in list(self._runs):
            self._take_out(run, self.slots[run.way])
            self._finish(run.claimed, run.queue, HANDED_BACK, run.began_at)

    def _drop_waiting(self, dropped: Callable[[Claimed], bool], reason: Reason) -> None:
        for way, waiting in self._waiting.items():
            jobs = list(waiting)
            waiting.clear()
            for claimed, queue in jobs:
                if not dropped(claimed):
                    waiting.append((claimed, queue))
                elif reason != "lost":
                    self._finish(claimed, queue, interrupted(claimed, reason), 0)
            self.slots[way].waiting = len(waiting)

    def close(self) -> None:
        for threads in (self._threads, self._hand_off_threads, self._process_threads):
            threads.close()
        self._children.close()
