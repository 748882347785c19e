"""Takes the messages of one queue of Redis, for the threads of one worker process."""

import random
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import redis
import structlog
from dramatiq.broker import MessageProxy
from dramatiq.brokers.redis import _RedisConsumer
from dramatiq.errors import ConnectionClosed

from relay.broker.queues import carries_drains
from relay.broker.received import LARGEST_BYTES, Refused, decode, too_large
from relay.broker.redis_client import (
    CALL_TIMEOUT_SECONDS,
    Line,
    code_of,
    connect,
    described,
    is_wrong_type,
)
from relay.log_limit import LogLimit
from relay.masking import mask

RECONNECT_SECONDS = 0.5
OWED_ACKS_LIMIT = 10_000
CLEAN_SECONDS = 60.0
FULL_SECONDS = 0.25
# The thread that gets a message begins before its consumer goes on: both need the interpreter, one of them at once.
HAND_OVER_SECONDS = 0.0004
CONSUMER = "tide-worker"

log = structlog.get_logger(__name__)


def consumer_name(identity: str, queue_name: str) -> str:
    """What the connection of a consumer is named in Redis."""
    return f"{CONSUMER}:{identity}:{queue_name}"


class Taken(NamedTuple):
    """What was taken from a queue, to be acknowledged."""

    message_id: bytes
    message: bytes
    left: int
    """How many messages the queue has still."""


def taken_from(found: list[Any]) -> Taken | None:
    """What the script for fetching has answered. Raises Refused."""
    if not found:
        return None
    message_id, message, left = found
    if isinstance(message, int):
        raise too_large(message) if message > LARGEST_BYTES else Refused("no_message", "its id has no message")
    return Taken(message_id, message, left)


class Room:
    """How many messages of the queues that share its threads a process has taken, waiting or running."""

    def __init__(self) -> None:
        self._taken = 0
        self._changed = threading.Condition()

    def enter(self, places: int, timeout_seconds: float) -> bool:
        """Takes a place as soon as one of so many is free; False if none was."""
        with self._changed:
            free = self._changed.wait_for(lambda: self._taken < places, timeout_seconds)
            self._taken += free
            return free

    def enter_again(self) -> None:
        """Takes a place back that was left for a while, whether there is one or not."""
        with self._changed:
            self._taken += 1

    def fits(self, places: int) -> bool:
        """Whether there are enough for those that entered."""
        return self._taken <= places

    def leave(self) -> None:
        with self._changed:
            self._taken -= 1
            self._changed.notify()


class Outage:
    """What keeps the consumers of a process from their broker: each reason is logged at once, then once a minute,
    and that it is over."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._queues: set[str] = set()
        """Those whose consumers cannot use the broker."""
        self._told: dict[str, LogLimit] = {}
        """By code of a reason."""
        self._lock = threading.Lock()

    def begin(self, queue_name: str, error: redis.exceptions.RedisError) -> None:
        code = code_of(error)
        with self._lock:
            self._queues.add(queue_name)
            times = self._told.setdefault(code, LogLimit()).count()
        if times:
            log.error("broker cannot be used", code=code, reason=mask(f"{self._url}: {described(error)}"), times=times)

    def end(self, queue_name: str) -> None:
        with self._lock:
            if queue_name not in self._queues:
                return
            self._queues.remove(queue_name)
            if self._queues:
                return
            self._told.clear()
        log.info("broker can be used again")


class WakingConsumer(_RedisConsumer):
    """Runs in its consumer thread; `ack` and `nack` are called by the worker threads."""

    broker: Any

    def __init__(self, broker: Any, queue_name: str, prefetch: int, timeout: int) -> None:
        super().__init__(broker, queue_name, prefetch, timeout)
        self._timeout_seconds = timeout / 1000
        self._identity = broker.identity()
        # A connection of its own, because its calls wait longer than others may take. `depths` finds it by its name.
        name = consumer_name(self._identity, queue_name)
        self._waiting = Line(connect(broker.url, self._timeout_seconds + CALL_TIMEOUT_SECONDS, name))
        self._room = broker.room_of_drains if carries_drains(queue_name) else Room()
        self._owed: deque[tuple[str, str]] = deque(maxlen=OWED_ACKS_LIMIT)
        self._is_empty = False
        """Whether nothing is left, as far as is known."""
        self._cleans_at = time.monotonic() + random.uniform(0, CLEAN_SECONDS)
        self.is_connected = True

    def __next__(self) -> MessageProxy | None:
        if self.broker.stopping.is_set():
            time.sleep(min(self._timeout_seconds, 0.05))
            return None
        if self.broker.identity() != self._identity:
            raise ConnectionClosed("the URL of PostgreSQL means another database now; its queues are served instead")
        if not self._enter():
            return None
        message = None
        try:
            message = self._next()
        except Refused as refused:
            self.broker.refusals.add(self.queue_name, refused)
        except redis.exceptions.RedisError as error:
            self._repair(error)
        finally:
            if message is None:
                self._room.leave()
        return message

    def _enter(self) -> bool:
        if not self.broker.has_room(self.queue_name):
            time.sleep(FULL_SECONDS)  # others may have room; if none has, this one takes it after all
        return self._room.enter(self.prefetch, self._timeout_seconds)

    def ack(self, message: MessageProxy) -> None:
        self._settle("ack", message)

    def nack(self, message: MessageProxy) -> None:
        self._settle("nack", message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        messages = list(messages)
        try:
            super().requeue(messages)
            if messages:
                self.broker.wake(self.queue_name, len(messages))
        except redis.exceptions.RedisError as error:
            raise ConnectionClosed(error) from None

    def close(self) -> None:
        self._waiting.close()

    def _next(self) -> MessageProxy | None:
        """Takes a message into the place that was entered for it, or waits for one."""
        self._pay_owed()
        self._clean()
        waits, self._is_empty = self._is_empty, False
        # One at a time, however many fit: idle processes that look at the same moment share what there is.
        taken = self._wait() if waits else self.broker.fetch(self.queue_name)
        self._served()
        if taken and waits and not self._may_keep():
            self.broker.give_back(self.queue_name, taken.message_id)
            return None
        self._is_empty = taken is None or taken.left == 0
        return self._opened(taken) if taken else None

    def _opened(self, taken: Taken) -> MessageProxy:
        try:
            message = decode(taken.message, self.queue_name)
        except Refused:
            self.broker._dispatch("ack")(self.queue_name, taken.message_id)
            raise
        # Not what the message says its id is: that would acknowledge another.
        message.options["redis_message_id"] = taken.message_id
        self.queued_message_ids.add(message.message_id)
        return MessageProxy(message)

    def _repair(self, error: redis.exceptions.RedisError) -> None:
        if not is_wrong_type(error):
            self._lose(error)
            return
        try:
            self.broker.repair(self.queue_name)
        except redis.exceptions.RedisError as lost:
            self._lose(lost)

    def _clean(self) -> None:
        """Every so often, what processes that died have left."""
        if time.monotonic() >= self._cleans_at:
            self._is_empty, self._cleans_at = False, time.monotonic() + CLEAN_SECONDS
            try:
                self.broker.do_fetch(self.queue_name, 0)
            except redis.exceptions.ResponseError as error:
                if code_of(error) != "refused":
                    raise
                self.logger.warning(mask(f"Cannot clean up after processes that died: {error}"))

    def _wait(self) -> Taken | None:
        """Takes the next message when it comes. Meanwhile its place is free for those of other queues."""
        self._room.leave()
        time.sleep(HAND_OVER_SECONDS)
        try:
            taken: Taken | None = self.broker.fetch_next(self._waiting, self.queue_name, self._timeout_seconds)
            return taken
        finally:
            self._room.enter_again()

    def _may_keep(self) -> bool:
        """Whether what was waited for is not for another consumer, as this one would run it later, or never."""
        is_stopping = self.broker.stopping.is_set()
        return not is_stopping and self._room.fits(self.prefetch) and self.broker.has_room(self.queue_name)

    def _settle(self, command: str, message: MessageProxy) -> None:
        redis_message_id = message.options["redis_message_id"]
        try:
            self.broker._dispatch(command)(self.queue_name, redis_message_id)
        except redis.exceptions.RedisError as error:
            if is_wrong_type(error):
                # The keys are not as they were, and the drain has been done. The consumer sees to the keys.
                self.logger.warning(mask(f"The broker refused an {command}: {error}"))
            else:
                self._owed.append((command, redis_message_id))
                self.broker.outage.begin(self.queue_name, error)
        finally:
            self.queued_message_ids.discard(message.message_id)
            self._room.leave()

    def _pay_owed(self) -> None:
        while self._owed:
            command, redis_message_id = self._owed[0]
            self.broker._dispatch(command)(self.queue_name, redis_message_id)
            self._owed.popleft()

    def _served(self) -> None:
        self.is_connected = True
        self.broker.outage.end(self.queue_name)

    def _lose(self, error: redis.exceptions.RedisError) -> None:
        self.is_connected = False
        if not self.broker.stopping.is_set():  # then it is we who close the connections
            self.broker.outage.begin(self.queue_name, error)
        # The name may lead to another server by now.
        self.broker.forget_connections()
        self._waiting.close()
        time.sleep(min(self._timeout_seconds, RECONNECT_SECONDS))
