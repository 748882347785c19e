"""Puts tasks into the Redis of an application: one trip for a batch, one command for each list."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from relay.backends.redis.config import LARGEST_TEXT_BYTES, RedisKeys
from relay.backends.redis.errors import ERRORS
from relay.errors import MissingExtra, NotConnected
from relay.models import Failure
from workers.jobs.hand_off.task import System, Task

if TYPE_CHECKING:
    from relay.backends.redis.connection import RedisLink

_TRIP_BYTES = 4 * 1024 * 1024
"""Redis does nothing else while it reads and runs what arrives together."""

Trip = dict[str, dict[int, bytes]]
"""By the key of a list: messages by the index of their task."""


class RedisSender:
    def __init__(self, keys: RedisKeys, system: System, where: str, pipeline: str) -> None:
        self._keys = keys
        self._system = system
        self._where = where
        self._pipeline = pipeline
        self._link: RedisLink | None = None
        self._largest_bytes = LARGEST_TEXT_BYTES

    @property
    def is_open(self) -> bool:
        return self._link is not None

    def open(self, deadline: float) -> None:
        try:
            from relay.backends.redis.connection import RedisLink
        except ImportError as error:
            raise MissingExtra("redis", "redis") from error
        link = RedisLink(self._keys, self._where, self._pipeline)
        try:
            link.open(deadline)
            self._largest_bytes = link.largest_text_bytes(deadline)
        except BaseException:
            link.close()
            raise
        self._link = link

    def send(self, tasks: Sequence[Task], deadline: float) -> list[Failure]:
        failures: list[Failure] = []
        for trip in self._trips(tasks, failures):
            failures += self._make(trip, tasks, deadline)
        return failures

    def abort(self) -> None:
        if (link := self._link) is not None:
            link.close()

    def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _trips(self, tasks: Sequence[Task], failures: list[Failure]) -> Iterator[Trip]:
        """What goes out together; a task that the server cannot take is added to `failures`."""
        trip: Trip = defaultdict(dict)
        size = 0
        for index, task in enumerate(tasks):
            message = self._system.redis_message(task)
            if len(message) > self._largest_bytes:
                # Found here, because the server's answer is to hang up.
                reason = f"{len(message)} bytes; the server takes {self._largest_bytes} (proto-max-bulk-len)"
                failures.append(Failure(index, True, "too_large", reason))
                continue
            if size + len(message) > _TRIP_BYTES and size:
                yield trip
                trip, size = defaultdict(dict), 0
            trip[self._system.redis_key(task)][index] = message
            size += len(message)
        if trip:
            yield trip

    def _make(self, trip: Trip, tasks: Sequence[Task], deadline: float) -> Iterator[Failure]:
        commands = [
            self._system.redis_command(key, {tasks[index].dedup_id: message for index, message in messages.items()})
            for key, messages in trip.items()
        ]
        try:
            if self._link is None:
                raise NotConnected(f"{self._where}: the connection was lost before it was sent", code="not_sent")
            answers = self._link.exchange(None, commands, deadline)
        except NotConnected as error:
            self.close()
            for index in (index for messages in trip.values() for index in messages):
                yield Failure(index, False, error.code, str(error))
            return
        for (key, messages), answer in zip(trip.items(), answers, strict=True):
            if isinstance(answer, Exception):
                permanent, code = ERRORS.verdict(answer)
                if not permanent:
                    self.close()  # after a failover, the name leads to another server than this connection
                yield from (Failure(index, permanent, code, f"key {key!r}: {answer}") for index in messages)
