"""How a worker process becomes one that the database knows, with a number, and stops being one."""

import os
import socket
from collections.abc import Mapping, Sequence

import structlog

import relay
from relay.errors import ConfigError
from relay.jobs.errors import JobError
from relay.jobs.handlers import AnyJob
from relay.settings import Settings
from workers.jobs.store import Store

log = structlog.get_logger(__name__)


class Enrolment:
    """Methods raise what those of the store do."""

    def __init__(
        self, settings: Settings, store: Store, handlers: Mapping[str, AnyJob], queue_names: Sequence[str]
    ) -> None:
        self._settings = settings
        self._store = store
        self._handlers = handlers
        self._queue_names = list(queue_names)

    async def start(self) -> int:
        """The number of the worker. Before that, the queues and schedules of its handlers are there."""
        for queue in self._queue_names:
            if queue != "*" and await self._store.value("engine_queue_is_there", queue=queue) is None:
                await self._create(queue)
        await self._declare()
        slots = self._settings.job_slots + self._settings.job_threads
        worker: int = await self._store.value(
            "engine_start", host=socket.gethostname(), pid=os.getpid(), queues=self._queue_names, slots=slots,
            version=relay.__version__,
        )  # fmt: skip
        log.info("ready to run jobs", worker=worker, queues=",".join(self._queue_names), handlers=len(self._handlers))
        return worker

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

    async def kept(self, worker: int, known: list[int]) -> set[int]:
        """Which of the leases that it knows it still has. Those that it does not know go back: their claim's answer was
        lost."""
        await self._store.value("engine_release_unknown", worker=worker, known=known)
        return set(await self._store.value("engine_leases", worker=worker, known=known))

    async def end(self, worker: int, queues: Sequence[str]) -> None:
        """What it still has goes back, and others are told."""
        await self._store.value("engine_stop", worker=worker)
        for queue in queues:
            await self._store.value("engine_ring", outbox=f"jobs/{queue}")
        log.info("no job runs here any more", worker=worker)
