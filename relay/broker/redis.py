"""Dramatiq's Redis broker, with a consumer that waits for work instead of polling for it.

Dramatiq's own sleeps up to a second between looks (pick-up p50 99 ms, max 536 ms on 2 cores). Here every enqueue also
pushes to a wake list, and a consumer that finds the queue empty blocks on that list (BLPOP). The wake carries no
meaning: the queue is the truth. A wake too many costs one look; a wake that is lost (Redis flushed) costs at most the
idle timeout, after which the consumer looks anyway. The look is sent along with the BLPOP, and Redis does it when that
ends. So a process that is killed or frozen while it waits may have taken one message: as with any that it takes, the
lease of the drain runs out.

The consumers of all queues of drains share the room of a process: a drain that it has no thread for is left to others,
and given back if it was taken while it waited.

Anyone who can write to Redis can write anything into the keys. A message is taken under the id that it was found under,
and is believed as far as `relay.broker.received` says. What is refused is removed, and so is a key of the wrong type.

A consumer survives the loss of Redis in place: it keeps count of the drains that its threads are busy with, and sends
the acknowledgements that it owes when Redis is back, so that no worker thread waits for Redis.

A server that answers and takes no writes is lost too: a replica after a failover, say. Its connections are closed,
because the name may lead to another server by now.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, TypeVar, cast

import dramatiq
import redis
import structlog
from dramatiq.broker import Consumer
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import current_millis
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import Middleware

from relay.broker.queues import Depth
from relay.broker.received import LARGEST_BYTES, Refusals
from relay.broker.redis_client import (
    CALL_TIMEOUT_SECONDS,
    Line,
    code_of,
    connect,
    described,
    evalsha,
    forget_connections,
    is_wrong_type,
)
from relay.broker.redis_consumer import CONSUMER, Outage, Room, Taken, WakingConsumer, consumer_name, taken_from
from relay.errors import ConfigError, NotConnected, RelayError
from relay.masking import mask

NAMESPACE = "tide"
# More wakes than consumers that are about to wait are useless: they would only make idle consumers look in vain.
WAKES_KEPT = 64
WAKE_LIFETIME_SECONDS = 60
# A drain that died in the queue is useless; it is kept for a while for diagnosis.
DEAD_MESSAGE_LIFETIME_MS = 3_600_000

# A scheduler renews its sign every five seconds.
SIGN_SECONDS = 30

LONGEST_ID = 64
FETCH = files("relay.broker").joinpath("fetch.lua").read_text()
ENQUEUE = files("relay.broker").joinpath("enqueue.lua").read_text()
WAKE = files("relay.broker").joinpath("wake.lua").read_text()

log = structlog.get_logger(__name__)

T = TypeVar("T")


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
        self.identity: Callable[[], str] = lambda: ""
        self.refusals = Refusals()
        self.has_room: Callable[[str], bool] = lambda _: True
        self.stopping = threading.Event()
        self.room_of_drains = Room()
        self.outage = Outage(url)
        super().__init__(
            client=connect(url, CALL_TIMEOUT_SECONDS),
            middleware=[_StopTaking(self.stopping), *middleware],
            namespace=NAMESPACE,
            dead_message_ttl=DEAD_MESSAGE_LIFETIME_MS,
        )
        self._line = Line(self.client)
        self._fetch = self.client.register_script(FETCH)
        self._enqueue = self.client.register_script(ENQUEUE)
        self._wake = self.client.register_script(WAKE)

    @property
    def consumer_class(self) -> type[WakingConsumer]:
        return WakingConsumer

    def declare_queue(self, queue_name: str) -> None:
        # Without the delay queue that Dramatiq declares beside each, whose consumer would poll for nothing.
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        if delay is not None:
            raise NotImplementedError("this broker has no delayed messages: the scheduler decides when work is due")
        self._use_database()
        self.emit_before("enqueue", message, delay)
        try:
            # Nothing is enqueued twice, so a message needs no other id in Redis than its own.
            self.do_enqueue(message.queue_name, message.message_id, message.encode())
        except redis.exceptions.RedisError as error:
            raise self._lost(error) from error
        self.emit_after("enqueue", message, delay)
        return message

    def do_enqueue(self, queue_name: str, message_id: str, data: bytes) -> None:
        key = f"{self.namespace}:{queue_name}"
        keys = [self.wake_key(queue_name), f"{key}.msgs", key]
        arguments: list[str | bytes | int] = [message_id, data, WAKES_KEPT, WAKE_LIFETIME_SECONDS]
        try:
            self._line.run(self._enqueue, keys, arguments)
        except redis.exceptions.ResponseError as error:
            if is_wrong_type(error):
                self.repair(queue_name)
            else:
                self.forget_connections()  # nothing was written: the name may lead to another server by now
            self._line.run(self._enqueue, keys, arguments)

    def forget_connections(self) -> None:
        forget_connections(self.client)
        self._line.close()

    def _lost(self, error: redis.exceptions.RedisError) -> NotConnected:
        self.forget_connections()
        return NotConnected(mask(f"broker {self.url}: {described(error)}"), code=code_of(error))

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        try:
            self._use_database()
        except RelayError as error:
            raise ConnectionClosed(error) from None  # Dramatiq retries in a moment
        return super().consume(queue_name, prefetch, timeout)

    def fetch(self, queue_name: str) -> Taken | None:
        """One message; None if there is none. Raises Refused."""
        return taken_from(self._fetch(keys=self._fetch_keys(queue_name), args=self._fetch_arguments()))

    def fetch_next(self, waiting: Line, queue_name: str, timeout_seconds: float) -> Taken | None:
        """The same as soon as a wake comes, or after the timeout. Raises Refused.

        Both commands are sent at once, on a connection that may wait: no round trip lies between wake and message.
        """
        keys = self._fetch_keys(queue_name)
        woken, found = waiting.ask(
            ("BLPOP", self.wake_key(queue_name), timeout_seconds),
            evalsha(self._fetch, keys, self._fetch_arguments()),
        )
        if isinstance(found, redis.exceptions.NoScriptError):
            return self.fetch(queue_name)
        for answer in (found, None if found else woken):  # what was taken is not lost, whatever is wrong with the wakes
            if isinstance(answer, redis.exceptions.RedisError):
                raise answer
        return taken_from(found)

    def give_back(self, queue_name: str, message_id: bytes) -> None:
        """Puts a message that was taken back on its queue, and lets another consumer look."""
        self._dispatch("requeue")(queue_name, message_id)
        self.wake(queue_name)

    def _fetch_keys(self, queue_name: str) -> list[str]:
        key = f"{self.namespace}:{queue_name}"
        taken = f"{self.namespace}:__acks__.{self.broker_id}.{queue_name}"
        return [key, f"{key}.msgs", taken, f"{self.namespace}:__heartbeats__"]

    def _fetch_arguments(self) -> list[str | int]:
        return [current_millis(), self.broker_id, LARGEST_BYTES, LONGEST_ID]

    def repair(self, queue_name: str) -> None:
        """Removes keys that have the wrong type, which only another client can have made."""
        key = f"{self.namespace}:{queue_name}"
        kinds = {
            key: "list", f"{key}.msgs": "hash", f"{key}.wake": "list", f"{key}.XQ": "zset", f"{key}.XQ.msgs": "hash",
            f"{self.namespace}:__heartbeats__": "zset",
            f"{self.namespace}:__acks__.{self.broker_id}.{queue_name}": "set",
        }  # fmt: skip
        for name, kind in kinds.items():
            found = cast(bytes, self.client.type(name)).decode()
            if found not in ("none", kind):
                self.client.unlink(name)
                log.error("removed a key of the broker that another client has put there", key=name, type=found)

    def depths(self, queue_names: Sequence[str]) -> list[Depth]:
        """Raises NotConnected."""
        self._use_database()
        try:
            waiting = [self.client.llen(f"{self.namespace}:{name}") for name in queue_names]
            connections = self._connections()
        except redis.exceptions.RedisError as error:
            raise self._lost(error) from error
        return [self._depth(name, count, connections) for name, count in zip(queue_names, waiting, strict=True)]

    def _connections(self) -> Counter[str] | None:
        """How many there are of each name, in our database of the server; None if this user may not see it."""
        db = str(self.client.get_connection_kwargs().get("db") or 0)
        try:
            clients = self.client.client_list(_type="normal")
            return Counter(str(client.get("name")) for client in clients if client.get("db") == db)
        except redis.exceptions.NoPermissionError:
            return None

    def _depth(self, queue_name: str, messages: int, connections: Counter[str] | None) -> Depth:
        if connections is None:
            return Depth(queue_name, messages, None)
        ours, others = consumer_name(self.identity(), queue_name), set()
        for name in connections:
            kind, _, rest = name.partition(":")
            identity, _, queue = rest.partition(":")
            if kind == CONSUMER and queue == queue_name and name != ours:
                others.add(identity)
        return Depth(queue_name, messages, connections[ours], tuple(sorted(others)))

    def _use_database(self) -> None:
        identity = self.identity()
        self.namespace = f"{NAMESPACE}:{identity}" if identity else NAMESPACE

    def _should_do_maintenance(self, command: str) -> int:
        # Not by chance within calls that must be quick: consumers ask for it, by a fetch of nothing.
        return int(command == "fetch")

    def wake(self, queue_name: str, count: int = 1) -> None:
        """Lets `count` waiting consumers look at the queue."""
        self._push_wakes(self.wake_key(queue_name), f"{self.namespace}:{queue_name}", count)

    def _push_wakes(self, wake_key: str, queue_key: str, count: int) -> None:
        self._wake(keys=[wake_key, queue_key], args=[min(count, WAKES_KEPT), WAKES_KEPT, WAKE_LIFETIME_SECONDS])

    def wake_key(self, queue_name: str) -> str:
        return f"{self.namespace}:{queue_name}.wake"

    def ping(self) -> None:
        """Tries a write, such as all others: what refuses them refuses it. Raises NotConnected."""
        try:
            self._push_wakes(f"{NAMESPACE}:__probe__.wake", f"{NAMESPACE}:__probe__", 1)
        except redis.exceptions.RedisError as error:
            if is_wrong_type(error):
                return  # another client has put a key there: the server would take the write
            raise self._lost(error) from error

    def leave_sign(self, scheduler_id: str) -> None:
        self._call(lambda: self.client.set(_sign(scheduler_id), "", ex=SIGN_SECONDS))

    def has_sign(self, scheduler_id: str) -> bool:
        return bool(self._call(lambda: self.client.exists(_sign(scheduler_id))))

    def _call(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except redis.exceptions.RedisError as error:
            raise self._lost(error) from error

    def close(self) -> None:
        self._line.close()
        self.client.close()


def _sign(scheduler_id: str) -> str:
    # Whatever the identity of the database: it may be about to change.
    return f"{NAMESPACE}:__scheduler__.{scheduler_id}"


class _StopTaking(Middleware):
    """Tells the consumers of a stopping worker to take nothing more: what they took would wait for the stop to end."""

    def __init__(self, stopping: threading.Event) -> None:
        self.stopping = stopping

    def before_worker_boot(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        self.stopping.clear()

    def before_worker_shutdown(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        self.stopping.set()
