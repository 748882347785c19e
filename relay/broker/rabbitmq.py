"""Dramatiq's RabbitMQ broker, with time limits, publisher confirms and our errors."""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import dramatiq
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import Middleware

from relay.errors import ConfigError, MissingExtra, NotConnected
from relay.masking import mask

try:
    import pika.exceptions
    from dramatiq.brokers.rabbitmq import RabbitmqBroker, _RabbitmqConsumer
except ImportError as error:
    raise MissingExtra("rabbitmq", "rabbitmq-broker") from error

REFUSED = (pika.exceptions.AuthenticationError, pika.exceptions.ProbableAuthenticationError)
LOST = (BrokerConnectionError, pika.exceptions.AMQPError, OSError)

# Seconds; by default pika waits indefinitely when the server blocks publishers.
LIMITS = {"socket_timeout": "2", "stack_timeout": "4", "blocked_connection_timeout": "5", "heartbeat": "30"}


def make(url: str, middleware: list[Middleware]) -> "ConfirmingRabbitmqBroker":
    """Raises ConfigError if the URL cannot be parsed. Does not connect."""
    try:
        return ConfirmingRabbitmqBroker(url, middleware)
    except ValueError as error:
        raise ConfigError(mask(f"invalid broker URL {url}: {error}")) from None


class ConfirmingRabbitmqBroker(RabbitmqBroker):
    """`enqueue` returns when RabbitMQ has the message, and recreates the queue if it was deleted."""

    def __init__(self, url: str, middleware: list[Middleware]) -> None:
        self.url = url
        super().__init__(url=_with_limits(url), middleware=middleware, confirm_delivery=True)

    @property
    def consumer_class(self) -> type["_Consumer"]:
        return _Consumer

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        try:
            return super().enqueue(message, delay=delay)
        except LOST as error:
            raise self._lost(error) from error

    def ping(self) -> None:
        try:
            self.connection.process_data_events(time_limit=0)
        except LOST as error:
            del self.connection  # so that the next try reconnects
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> NotConnected:
        cause = error.args[0] if error.args else error
        code = "auth" if isinstance(cause, REFUSED) else "not_connected"
        return NotConnected(mask(f"broker {self.url}: {cause!r}"), code=code)


class _Consumer(_RabbitmqConsumer):
    @property
    def is_connected(self) -> bool:
        return bool(self.connection.is_open)


def _with_limits(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=urlencode({**LIMITS, **dict(parse_qsl(parts.query))})))
