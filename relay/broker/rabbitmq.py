"""Dramatiq's RabbitMQ broker, with time limits, publisher confirms and our errors."""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import dramatiq
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.common import xq_name
from dramatiq.errors import BrokerConnectionError, ConnectionClosed
from dramatiq.middleware import Middleware

from relay.broker.identity import name_of
from relay.broker.queues import Depth
from relay.broker.received import Refusals, Refused, decode
from relay.errors import ConfigError, MissingExtra, NotConnected, RelayError
from relay.masking import mask

try:
    import pika.exceptions
    from dramatiq.brokers.rabbitmq import RabbitmqBroker, _RabbitmqConsumer, _RabbitmqMessage
except ImportError as error:
    raise MissingExtra("rabbitmq", "rabbitmq-broker") from error

REFUSED = (pika.exceptions.AuthenticationError, pika.exceptions.ProbableAuthenticationError)
LOST = (BrokerConnectionError, pika.exceptions.AMQPError, OSError)

DEAD_TTL_MS = 3_600_000
RESOURCE_LOCKED = 405
# The queues of a database that is gone, or has another identity now, are deleted when no one has used them for so long.
UNUSED = {"x-expires": 7 * 86_400_000}

# Seconds; by default pika waits indefinitely when the server blocks publishers.
LIMITS = {"socket_timeout": "2", "stack_timeout": "4", "blocked_connection_timeout": "5", "heartbeat": "30"}


def make(url: str, middleware: list[Middleware]) -> "ConfirmingRabbitmqBroker":
    """Raises ConfigError if the URL cannot be parsed. Does not connect."""
    try:
        return ConfirmingRabbitmqBroker(url, middleware)
    except ValueError as error:
        raise ConfigError(mask(f"invalid broker URL {url}: {error}")) from None


class ConfirmingRabbitmqBroker(RabbitmqBroker):
    """`enqueue` returns when RabbitMQ has the message, and recreates the queue if it was deleted.

    Queues have the identity of the database in their names, and none is for delayed messages: there are none.
    """

    def __init__(self, url: str, middleware: list[Middleware]) -> None:
        self.url = url
        self.identity: Callable[[], str] = lambda: ""
        self.refusals = Refusals()
        self.has_room: Callable[[str], bool] = lambda _: True
        self._declared: set[str] = set()
        """As RabbitMQ knows them."""
        super().__init__(url=_with_limits(url), middleware=middleware, confirm_delivery=True)

    @property
    def consumer_class(self) -> type["_Consumer"]:
        return _Consumer

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)
        if ensure:
            self.ensure(name_of(queue_name, self.identity()))

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        try:
            return super().consume(queue_name, prefetch, timeout)
        except RelayError as error:
            raise ConnectionClosed(error) from None  # Dramatiq retries in a moment
        except pika.exceptions.AMQPError as error:
            del self.connection
            raise ConnectionClosed(error) from None

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        if delay is not None:
            raise NotImplementedError("this broker has no delayed messages: the scheduler decides when work is due")
        name = name_of(message.queue_name, self.identity())
        self.emit_before("enqueue", message, delay)
        try:
            self._publish(name, message.encode())
        except LOST:
            # The connection was closed meanwhile, or the queue deleted: once more with new ones of both.
            self._forget(name)
            try:
                self._publish(name, message.encode())
            except LOST as error:
                self._forget(name)
                raise self._lost(error) from error
        self.emit_after("enqueue", message, delay)
        return message

    def ping(self) -> None:
        try:
            self.connection.process_data_events(time_limit=0)
        except LOST as error:
            del self.connection  # so that the next try reconnects
            raise self._lost(error) from error

    def leave_sign(self, scheduler_id: str) -> None:
        try:
            # It is gone with the connection. No message ever comes into it.
            self.channel.queue_declare(_sign(scheduler_id), exclusive=True)
        except LOST as error:
            del self.connection
            raise self._lost(error) from error

    def has_sign(self, scheduler_id: str) -> bool:
        try:
            self.channel.queue_declare(_sign(scheduler_id), passive=True)
        except pika.exceptions.ChannelClosedByBroker as error:
            del self.channel
            return bool(error.reply_code == RESOURCE_LOCKED)  # it is there, and belongs to another connection
        except LOST as error:
            del self.connection
            raise self._lost(error) from error
        return True

    def ensure(self, name: str) -> None:
        """Makes the queue, and the one for what its consumers refuse, where they do not exist. Raises AMQPError."""
        if name not in self._declared:
            self.channel.queue_declare(xq_name(name), durable=True, arguments={"x-message-ttl": DEAD_TTL_MS, **UNUSED})
            self.channel.queue_declare(name, durable=True, arguments={**self._build_queue_arguments(name), **UNUSED})
            self._declared.add(name)

    def depths(self, queue_names: Sequence[str]) -> list[Depth]:
        """Raises NotConnected."""
        try:
            return [self._depth(name) for name in queue_names]
        except LOST as error:
            del self.connection
            raise self._lost(error) from error

    def flush(self, queue_name: str) -> None:
        name = name_of(queue_name, self.identity())
        for each in (name, xq_name(name)):
            try:
                self.channel.queue_purge(each)
            except pika.exceptions.AMQPChannelError:
                del self.channel

    def _depth(self, queue_name: str) -> Depth:
        try:
            answer = self.channel.queue_declare(name_of(queue_name, self.identity()), passive=True).method
        except pika.exceptions.ChannelClosedByBroker:
            del self.channel
            return Depth(queue_name, 0, 0)  # nothing has used it yet
        return Depth(queue_name, answer.message_count, answer.consumer_count)

    def _publish(self, name: str, body: bytes) -> None:
        self.ensure(name)
        properties = pika.BasicProperties(delivery_mode=2)
        # Mandatory: a queue that is gone is an error, not a drain that is lost.
        self.channel.basic_publish("", name, body, properties, mandatory=True)

    def _forget(self, name: str) -> None:
        del self.connection
        self._declared.discard(name)

    def _lost(self, error: Exception) -> NotConnected:
        cause = error.args[0] if error.args else error
        code = "auth" if isinstance(error, REFUSED) or isinstance(cause, REFUSED) else "not_connected"
        return NotConnected(mask(f"broker {self.url}: {cause!r}"), code=code)


class _Consumer(_RabbitmqConsumer):
    def __init__(self, broker: ConfirmingRabbitmqBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        self._identity = broker.identity()
        self._name = name_of(queue_name, self._identity)
        super().__init__(broker, self._name, prefetch, timeout)
        self.queue_name = queue_name

    @property
    def is_connected(self) -> bool:
        return bool(self.connection.is_open)

    def __next__(self) -> MessageProxy | None:
        if self.broker.identity() != self._identity:
            raise ConnectionClosed("the URL of PostgreSQL means another database now; its queues are served instead")
        try:
            method, _, body = next(self.iterator)
            if method is None:
                return None
            try:
                message = decode(body, self.queue_name)
            except Refused as refused:
                self.broker.refusals.add(self.queue_name, refused)
                self.channel.basic_ack(method.delivery_tag)
                return None
        except (AssertionError, StopIteration, *LOST) as error:
            # It may be the queue that is gone.
            self.broker._declared.discard(self._name)
            raise ConnectionClosed(error) from None
        self.known_tags.add(method.delivery_tag)
        return _RabbitmqMessage(method.redelivered, method.delivery_tag, message)


def _sign(scheduler_id: str) -> str:
    # Whatever the identity of the database: it may be about to change.
    return f"tide.scheduler.{scheduler_id}"


def _with_limits(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=urlencode({**LIMITS, **dict(parse_qsl(parts.query))})))
