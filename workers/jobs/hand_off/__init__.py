"""Hands jobs of the kinds dramatiq and celery to the user's own application: each becomes a message on its broker.

The id of the message or task is the job's, so that a job which is handed off again, because a worker was killed before
the end of the job was written, comes under the same id. A job that was handed off has succeeded: what becomes of the
task is for its application to say.
"""

from collections.abc import Sequence
from threading import Lock
from typing import Protocol

import structlog

from relay.backends.common.deadline import in_ms, is_over
from relay.backends.redis.config import RedisKeys
from relay.errors import ConfigError, NotConnected
from relay.jobs.models import Claimed, Ended
from relay.masking import mask
from relay.models import Failure
from relay.pipelines.jobs import BrokerKeys, JobsConfig, Kind
from relay.process.unforeseen import INTERNAL, described, log_bug
from workers.jobs.hand_off.celery import Celery
from workers.jobs.hand_off.dramatiq import Dramatiq
from workers.jobs.hand_off.rabbitmq import RabbitmqSender
from workers.jobs.hand_off.redis import RedisSender
from workers.jobs.hand_off.task import BadJob, System, Task, make_task

log = structlog.get_logger(__name__)

KINDS: dict[str, Kind] = {"d": "dramatiq", "c": "celery"}
"""As a claim has them: the kinds of jobs that are handed off."""
_ERROR_CHARACTERS = 2_000
_SYSTEMS: dict[Kind, type[Dramatiq] | type[Celery]] = {"dramatiq": Dramatiq, "celery": Celery}


class Sender(Protocol):
    """The way to one broker. One thread at a time; `abort` alone may come from another."""

    @property
    def is_open(self) -> bool:
        """False after `close`, and when `send` has lost the connection."""

    def open(self, deadline: float) -> None:
        """Raises NotConnected, or ConfigError when someone must change something."""

    def send(self, tasks: Sequence[Task], deadline: float) -> list[Failure]:
        """Those that the broker has not confirmed. It may have taken any of them whose failure is not permanent."""

    def abort(self) -> None:
        """Ends what another thread waits for."""

    def close(self) -> None: ...


class HandOff:
    """For the jobs of one queue, under one revision of its configuration. Batches of one kind take turns."""

    def __init__(self, config: JobsConfig, queue: str) -> None:
        """`config` with its references resolved. Connects when the first job comes."""
        self._queue = queue
        self._lines = {kind: _Line(config, kind, keys, queue) for kind, keys in config.brokers.items()}

    def send_many(self, jobs: Sequence[Claimed]) -> list[Ended]:
        """What became of each, in order. Takes two `timeout_ms` at most for each kind."""
        ended: dict[int, Ended] = {}
        for letter, kind in KINDS.items():
            of_kind = {place: job for place, job in enumerate(jobs) if job.kind == letter}
            if not of_kind:
                continue
            if kind in self._lines:
                ended |= self._lines[kind].send_many(of_kind)
            else:
                reason = (
                    f"job queue {self._queue!r} has no {kind}_url: set it to the URL of its broker in the "
                    "configuration of the queue"
                )
                ended |= dict.fromkeys(of_kind, Ended("r", "config", reason))
        return [ended[place] for place in range(len(jobs))]

    def close(self) -> None:
        """Ends batches that are under way."""
        for line in self._lines.values():
            line.close()


class _Line:
    """One application."""

    def __init__(self, config: JobsConfig, kind: Kind, keys: BrokerKeys, queue: str) -> None:
        self._kind = kind
        self._timeout_ms = config.pipeline.timeout_ms
        self._system: System = _SYSTEMS[kind](config.pipeline)
        self._in_use = Lock()
        self._sender: Sender
        is_redis = isinstance(keys, RedisKeys)
        self._where = f"job queue {queue!r}: {self._system.name}'s {'Redis' if is_redis else 'RabbitMQ'}"
        if isinstance(keys, RedisKeys):
            self._sender = RedisSender(keys, self._system, self._where, f"jobs.{queue}")
        else:
            self._sender = RabbitmqSender(keys, self._system, self._where, f"jobs.{queue}")

    def send_many(self, jobs: dict[int, Claimed]) -> dict[int, Ended]:
        ended: dict[int, Ended] = {}
        tasks: dict[int, Task] = {}
        for place, job in jobs.items():
            try:
                tasks[place] = task = make_task(job, self._system.default_queue, self._kind)
                self._system.check(task)
            except BadJob as error:
                tasks.pop(place, None)
                ended[place] = Ended("d", error.code, _text(f"{self._where}: the job cannot be a message: {error}"))
        places, batch = list(tasks), list(tasks.values())
        failures = self._send(batch) if batch else []
        ended |= dict.fromkeys(places, Ended("s"))
        return ended | {places[one.index]: self._ended(one, batch[one.index]) for one in failures}

    def close(self) -> None:
        if not self._in_use.acquire(blocking=False):
            self._sender.abort()
            self._in_use.acquire()
        try:
            self._sender.close()
        finally:
            self._in_use.release()

    def _send(self, tasks: Sequence[Task]) -> list[Failure]:
        deadline = in_ms(self._timeout_ms)
        with self._in_use:
            try:
                failures = self._try(tasks, deadline)
                unsent = [one.index for one in failures if not one.permanent]
                if unsent and not self._sender.is_open and not is_over(deadline):
                    # Once more, on a new connection: one that was idle may have been closed, and RabbitMQ closes it for
                    # one message that is too large. Neither shall cost the jobs an attempt.
                    failures = [one for one in failures if one.permanent]
                    again = self._try([tasks[index] for index in unsent], deadline)
                    failures += [_moved(one, unsent[one.index]) for one in again]
            except ConfigError as error:
                failures = _all(tasks, "config", str(error))
            except NotConnected as error:
                failures = _all(tasks, error.code, str(error))
            except Exception as error:  # noqa: BLE001  a bug must not cost the engine its batch
                log_bug("bug in handing off jobs", error, kind=self._kind)
                self._sender.close()
                failures = _all(tasks, INTERNAL, described(error))
            return failures

    def _try(self, tasks: Sequence[Task], deadline: float) -> list[Failure]:
        if not self._sender.is_open:
            self._sender.open(deadline)
        return self._sender.send(tasks, deadline)

    def _ended(self, failure: Failure, task: Task) -> Ended:
        reason = failure.reason
        if failure.code == "unroutable":
            reason = (
                f"there is no queue {task.queue!r}: start a worker of the application that consumes it, or name "
                "another in the options of the job; then replay the job"
            )
        if not reason.startswith(self._where):
            reason = f"{self._where}, queue {task.queue!r}: {reason}"
        return Ended("d" if failure.permanent else "r", failure.code, _text(reason))


def _all(tasks: Sequence[Task], code: str, reason: str) -> list[Failure]:
    return [Failure(index, False, code, reason) for index in range(len(tasks))]


def _moved(failure: Failure, index: int) -> Failure:
    return Failure(index, failure.permanent, failure.code, failure.reason)


def _text(reason: str) -> str:
    return mask(reason.replace("\0", " "), most_characters=_ERROR_CHARACTERS)
