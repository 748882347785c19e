"""The engine of a worker process: runs jobs in a thread of its own, which has a loop; see `workers.jobs.loop`."""

import asyncio
import threading
import time
from collections.abc import Mapping
from typing import Any

from relay.drains.lease import DrainStart
from relay.jobs.handlers import AnyJob
from relay.models import Drain
from relay.pipelines.jobs import parse_jobs
from relay.settings import Settings
from workers.jobs.hand_off import HandOff
from workers.jobs.http import HttpSender
from workers.jobs.loop import TOLD_SECONDS, Loop
from workers.jobs.queues import Queue


def longest_end_seconds(settings: Settings) -> float:
    """How long the end of an engine may take."""
    return settings.job_grace_seconds + TOLD_SECONDS + 2 * settings.connect_timeout_seconds


class Engine:
    """For other threads: what the process does with its engine."""

    def __init__(self, settings: Settings, handlers: Mapping[str, AnyJob]) -> None:
        self._settings = settings
        self._handlers = handlers
        self._known: dict[str, Queue] = {}
        self._passed_on: dict[str, tuple[float, float]] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job-engine", daemon=True)
        self._thread.start()
        self._ready.wait()
        if not hasattr(self, "_loop"):
            raise RuntimeError("the engine of jobs did not start: the log says why")

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._main())
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop = Loop(self._settings, self._handlers, self.queue_names)
        self._ready.set()
        await self._loop.run()

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
        known = self._known.get(name)
        if known is None or known.revision != start.revision or known.outbox_id != start.outbox_id:
            assert start.outbox_id is not None
            assert start.group_id is not None
            config = parse_jobs(start.config, resolved=True)
            where = f"job queue {name!r}"
            http = HttpSender(config.pipeline.http, self._loop.connections, where)
            known = Queue(
                name, start.outbox_id, start.group_id, drain.pipeline, start.revision, self._ways(name), http,
                HandOff(config, name),
            )  # fmt: skip
        self._known[name] = known
        self._loop.call(self._loop.take, known, drain)

    def passed_on(self, queue: str) -> float:
        """After how many seconds another process shall be asked about a queue that this one does not serve."""
        now = time.monotonic()
        pause, until = self._passed_on.get(queue, (0.0, 0.0))
        pause = min(1.0, 2 * pause) if now < until else 0.01
        self._passed_on[queue] = (pause, now + 5)
        return pause

    def stop(self) -> None:
        """Begins the end: nothing more is claimed, what was not begun goes back, the rest has its grace."""
        self._loop.call(self._loop.stop)

    def close(self) -> None:
        """Waits for the end that `stop` began."""
        self._thread.join(longest_end_seconds(self._settings))
        self._loop.signs.close()

    @property
    def stuck(self) -> int:
        """How many slots are held by handlers that do not end."""
        return self._loop.runner.stuck

    @property
    def has_room(self) -> bool:
        """Whether a job could begin now."""
        return any(slots.room > 0 for slots in self._loop.runner.slots.values())

    def _ways(self, queue: str) -> set[Any]:
        made = (handler for handler in self._handlers.values() if handler.options["queue"] == queue)
        return {
            "process" if each.isolation == "process" else "loop" if each.is_coroutine else "thread" for each in made
        }
