"""Connecting to RabbitMQ: the first node that answers, a channel on it, and an orderly close.

Of kombu only py-amqp, its AMQP client, is used: kombu's own layers confirm one message at a time. Import this module
where RabbitMQ is used; it needs the client library.
"""

import contextlib
import ssl
from collections.abc import Callable, Iterator
from typing import Any

from amqp import method_framing  # type: ignore[import-untyped]
from amqp.exceptions import AMQPError, NotFound  # type: ignore[import-untyped]

from relay import __version__
from relay.backends.common.tls import tls_context
from relay.backends.rabbitmq.config import Address, RabbitmqKeys, addresses
from relay.backends.rabbitmq.errors import ERRORS
from relay.backends.rabbitmq.transport import Channel, Connection, TimeLimit
from relay.errors import NotConnected

_CLOSE_SECONDS = 1.0

LOST = (AMQPError, OSError)
"""What the client raises; after any of it the connection is closed."""


class RabbitmqLink:
    """One connection with one channel. One thread at a time; `abort` alone may come from another."""

    def __init__(
        self,
        keys: RabbitmqKeys,
        pipeline: str,
        where: str,
        *,
        timeout_seconds: float,
        heartbeat_seconds: int,
        frame_handler: Any = method_framing.frame_handler,
    ) -> None:
        """`frame_handler` puts the frames together that come; py-amqp's own by default."""
        self.limit = TimeLimit()
        self.where = where
        self.blocked = False
        """The server takes no messages for now: an alarm of its memory or disk."""
        self.connection: Connection
        self.channel: Channel
        self._keys = keys
        self._pipeline = pipeline
        self._timeout_seconds = timeout_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._frame_handler = frame_handler
        self._connected: Connection | None = None

    def open(self) -> None:
        """Connects, and opens the channel. Raises NotConnected, or ConfigError when someone must change something."""
        self.limit.begin(self._timeout_seconds)
        nodes = addresses(self._keys, self.where)
        context = tls_context(self._keys, self.where) if any(node.tls for node in nodes) else None
        for node in nodes:
            try:
                with self.errors(opening=True):
                    self._connect(node, context)
                    return
            except NotConnected:
                self.close()
                if node is nodes[-1]:
                    raise

    @contextlib.contextmanager
    def errors(self, *, opening: bool = False) -> Iterator[None]:
        """Whatever the client raises inside leaves as one of our errors."""
        try:
            yield
        except LOST as error:
            raise ERRORS.translated(error, self.where, opening=opening) from error

    def exists(self, ask: Callable[[Channel], object]) -> bool:
        """Whether what a passive declaration asks for is there."""
        try:
            ask(self.channel)
        except NotFound:
            # The answer of the server is to close the channel.
            self.channel = self.connection.channel()
            return False
        return True

    def abort(self) -> None:
        """Ends the connection under the thread that uses it."""
        if self._connected is not None:
            self._connected.abort()

    def close(self, *, in_good_order: bool = True) -> None:
        """Takes a second at most. In good order: the server reads what was sent before the connection ends."""
        connection, self._connected = self._connected, None
        if connection is None:
            return
        self.limit.begin(_CLOSE_SECONDS)
        if in_good_order:
            # Even if an orderly close fails, collect() ends the connection.
            with contextlib.suppress(*LOST):
                connection.close()
        connection.collect()

    def _connect(self, node: Address, context: ssl.SSLContext | None) -> None:
        connection = Connection(
            self.limit,
            host=f"[{node.host}]:{node.port}" if ":" in node.host else f"{node.host}:{node.port}",
            userid=node.user,
            password=node.password,
            login_method="PLAIN",
            virtual_host=node.virtual_host,
            ssl={"context": context, "server_hostname": node.host} if node.tls else False,
            connect_timeout=self.limit.remaining(),
            heartbeat=self._heartbeat_seconds,
            frame_handler=self._frame_handler,
            client_properties={
                "product": "tide-relay",
                "product_version": __version__,
                "connection_name": f"tide-relay {self._pipeline}",
            },
            on_blocked=self._on_blocked,
            on_unblocked=self._on_unblocked,
        )
        self._connected = self.connection = connection
        self.blocked = False
        connection.connect()
        self.channel = connection.channel()

    def _on_blocked(self, _reason: str) -> None:
        self.blocked = True

    def _on_unblocked(self) -> None:
        self.blocked = False
