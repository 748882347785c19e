"""Dramatiq's Redis broker, with a consumer that waits for work instead of polling for it.

Dramatiq's own sleeps up to a second between looks (pick-up p50 99 ms, max 536 ms on 2 cores). Here every enqueue also
pushes to a wake list, and a consumer that finds the queue empty blocks on that list (BLPOP). The wake carries no
meaning: the queue is the truth. A wake too many costs one look; a wake that is lost (Redis flushed, a worker killed
between wake and look) costs at most the idle timeout, after which the consumer looks anyway.

The consumers of all queues of drains share the room of a process: a drain that it has no thread for is left to others.

A consumer survives the loss of Redis in place: it keeps count of the drains that its threads are busy with, and sends
the acknowledgements that it owes when Redis is back, so that no worker thread waits for Redis.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import dramatiq
import redis
from dramatiq.broker import MessageProxy
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import Middleware
from redis.backoff import NoBackoff
from redis.retry import Retry

from relay.broker.queues import carries_drains
from relay.errors import ConfigError, NotConnected
from relay.masking import mask

NAMESPACE = "tide"
CALL_TIMEOUT_SECONDS = 2.0
RECONNECT_SECONDS = 0.5
# More wakes than consumers that are about to wait are useless: they would only make idle consumers look in vain.
WAKES_KEPT = 64
WAKE_LIFETIME_SECONDS = 60
# A drain that died in the queue is useless; it is kept for a while for diagnosis.
DEAD_MESSAGE_LIFETIME_MS = 3_600_000
OWED_ACKS_LIMIT = 10_000

LOST = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)


def make(url: str, middleware: list[Middleware]) -> "WakingRedisBroker":
    """Raises ConfigError if the URL cannot be parsed. Does not connect."""
    try:
        return WakingRedisBroker(url, middleware)
    except ValueError as error:
        raise ConfigError(mask(f"invalid broker URL {url}: {error}")) from None


class WakingRedisBroker(RedisBroker):
    """Differs from Dramatiq's in waking, in time limits on every call, and in having no delayed messages."""

    def __init__(self, url: str, middleware: list[Middleware]) -> None:
        self.url = url
        self.stopping = threading.Event()
        self.room_of_drains = Room()
        super().__init__(
            client=_client(url, CALL_TIMEOUT_SECONDS),
            middleware=[_StopTaking(self.stopping), *middleware],
            namespace=NAMESPACE,
            dead_message_ttl=DEAD_MESSAGE_LIFETIME_MS,
        )

    @property
    def consumer_class(self) -> type["_WakingConsumer"]:
        return _WakingConsumer

    def declare_queue(self, queue_name: str) -> None:
        # Without the delay queue that Dramatiq declares beside each, whose consumer would poll for nothing.
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        if delay is not None:
            raise NotImplementedError("this broker has no delayed messages: the scheduler decides when work is due")
        try:
            return super().enqueue(message)
        except redis.exceptions.RedisError as error:
            raise NotConnected(mask(f"broker {self.url}: {error}"), code=_code(error)) from error

    def do_enqueue(self, queue_name: str, message_id: str, data: bytes) -> None:
        self._dispatch("enqueue")(queue_name, message_id, data)
        self.wake(queue_name)

    def wake(self, queue_name: str, count: int = 1) -> None:
        """Lets `count` waiting consumers look at the queue."""
        key = self.wake_key(queue_name)
        pipe = self.client.pipeline(transaction=False)
        pipe.rpush(key, *["1"] * min(count, WAKES_KEPT))
        pipe.ltrim(key, -WAKES_KEPT, -1)
        pipe.expire(key, WAKE_LIFETIME_SECONDS)
        pipe.execute()

    def wake_key(self, queue_name: str) -> str:
        return f"{self.namespace}:{queue_name}.wake"

    def ping(self) -> None:
        try:
            self.client.ping()
        except redis.exceptions.RedisError as error:
            raise NotConnected(mask(f"broker {self.url}: {error}"), code=_code(error)) from error

    def close(self) -> None:
        self.client.close()


class _StopTaking(Middleware):
    """Tells the consumers of a stopping worker to take nothing more: what they took would wait for the stop to end."""

    def __init__(self, stopping: threading.Event) -> None:
        self.stopping = stopping

    def before_worker_boot(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        self.stopping.clear()

    def before_worker_shutdown(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        self.stopping.set()


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

    def leave(self) -> None:
        with self._changed:
            self._taken -= 1
            self._changed.notify()


class _WakingConsumer(_RedisConsumer):
    """Runs in its consumer thread; `ack` and `nack` are called by the worker threads."""

    broker: WakingRedisBroker

    def __init__(self, broker: WakingRedisBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        super().__init__(broker, queue_name, prefetch, timeout)
        self._timeout_seconds = timeout / 1000
        # A connection of its own, because its calls wait longer than others may take.
        self._waiting = _client(broker.url, self._timeout_seconds + CALL_TIMEOUT_SECONDS)
        self._room = broker.room_of_drains if carries_drains(queue_name) else Room()
        self._owed: deque[tuple[str, str]] = deque(maxlen=OWED_ACKS_LIMIT)
        self.is_connected = True

    def __next__(self) -> MessageProxy | None:
        if self.broker.stopping.is_set():
            time.sleep(min(self._timeout_seconds, 0.05))
            return None
        if not self._room.enter(self.prefetch, self._timeout_seconds):
            return None
        message = None
        try:
            try:
                self._pay_owed()
                message = self._take()
            finally:
                if message is None:
                    self._room.leave()
            if message is None:
                self._wait()
        except LOST as error:
            self._outage(error)
            return None
        if not self.is_connected:
            self.is_connected = True
            self.logger.info("Connected to the broker again.")
        return message

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
        except LOST as error:
            raise ConnectionClosed(error) from None

    def close(self) -> None:
        self._waiting.close()

    def _take(self) -> MessageProxy | None:
        # One at a time, however many fit: idle processes that look at the same moment share what there is.
        for data in self.broker.do_fetch(self.queue_name, 1):
            if data is not None:
                message: dramatiq.Message[Any] = dramatiq.Message.decode(data)
                self.queued_message_ids.add(message.message_id)
                return MessageProxy(message)
        return None

    def _wait(self) -> None:
        woken = self._waiting.blpop([self.broker.wake_key(self.queue_name)], timeout=self._timeout_seconds)
        if woken and self.broker.stopping.is_set():
            # This one takes nothing any more: another consumer must.
            self.broker.wake(self.queue_name)

    def _settle(self, command: str, message: MessageProxy) -> None:
        redis_message_id = message.options["redis_message_id"]
        try:
            self.broker._dispatch(command)(self.queue_name, redis_message_id)
        except LOST as error:
            self._owed.append((command, redis_message_id))
            self.logger.warning(mask(f"The broker is not there to take an {command}; sent when it is back: {error}"))
        finally:
            self.queued_message_ids.discard(message.message_id)
            self._room.leave()

    def _pay_owed(self) -> None:
        while self._owed:
            command, redis_message_id = self._owed[0]
            self.broker._dispatch(command)(self.queue_name, redis_message_id)
            self._owed.popleft()

    def _outage(self, error: Exception) -> None:
        if self.is_connected:
            self.is_connected = False
            self.logger.error(mask(f"Lost the broker {self.broker.url}; retrying until it is back: {error}"))
        time.sleep(min(self._timeout_seconds, RECONNECT_SECONDS))


def _client(url: str, timeout_seconds: float) -> redis.Redis:
    # No retries here: the callers know how long they may wait, and a pooled connection that the server closed
    # meanwhile is detected and replaced before it is used.
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=CALL_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


def _code(error: redis.exceptions.RedisError) -> str:
    # Authentication errors are connection errors to redis-py, so they come first.
    table: list[tuple[type[Exception], str]] = [
        (redis.exceptions.AuthenticationError, "auth"),
        (redis.exceptions.AuthorizationError, "auth"),
        (redis.exceptions.NoPermissionError, "auth"),
        (redis.exceptions.TimeoutError, "timeout"),
        (redis.exceptions.ConnectionError, "not_connected"),
    ]
    return next((code for kind, code in table if isinstance(error, kind)), "refused")
