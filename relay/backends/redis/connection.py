"""The connection to one Redis server, or one to each node of a Redis Cluster that is asked something.

Why not redis-py's client: it sends a command again after a lost connection, which may have executed it already, its
time limits count for single reads, and its pipeline takes half as much CPU time again. The bare loop of
`benchmarks/backends/redis_streams.py` is that pipeline (`make bench ARGS="--only redis"` compares the two). So this is
redis-py's `Connection`, one level below, with commands packed by hiredis. Nothing is sent twice, and every exchange
ends at a deadline.

The slots of a cluster are read when the link opens. When they move, the answer is MOVED, which ends the link as a lost
connection does: opening again reads them again.
"""

import contextlib
import socket
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import hiredis
import redis.connection
from redis.crc import key_slot
from redis.exceptions import RedisError, ResponseError

from relay.backends.common.deadline import left
from relay.backends.redis.config import LARGEST_TEXT_BYTES, Address, RedisKeys, connect_options
from relay.backends.redis.errors import ERRORS
from relay.errors import ConfigError, NotConnected, RelayError

Connection = Any  # redis-py's, which has no annotations
Command = Sequence[str | bytes | int]

_CLOSE_SECONDS = 2.0
_REPLIES_BETWEEN_LOOKS = 64


class RedisLink:
    """Every method but `close` by one thread at a time. A lost link stays lost: make a new one."""

    def __init__(self, keys: RedisKeys, where: str, pipeline: str) -> None:
        self._keys = keys
        self._is_cluster = keys.is_cluster
        self._where = where
        self._name = client_name(pipeline)
        self._connections: dict[tuple[str, int], Connection] = {}
        self._first: Address | None = None
        self._slots: list[tuple[int, int, Address]] = []
        self._busy = threading.Lock()
        self._closed = False

    def open(self, deadline: float) -> None:
        """Raises NotConnected, or ConfigError when someone must change something."""
        problem: RelayError | None = None
        addresses = self._keys.addresses
        for number, address in enumerate(addresses):
            # One that does not answer leaves time for the others.
            turn_ends = deadline - left(deadline) * (len(addresses) - number - 1) / (len(addresses) - number)
            try:
                self._connect(address, turn_ends)
                self._first = address
                if self._is_cluster:
                    self._learn_slots(address, turn_ends)
                return
            except NotConnected as error:
                problem = error
        assert problem is not None
        raise problem

    def ask(self, key: str | None, *command: str | bytes | int, deadline: float) -> Any:
        """The answer of the server that has the key; without one, of the first. Raises ResponseError, NotConnected."""
        [answer] = self.exchange(key, [command], deadline)
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    def exchange(self, key: str | None, commands: Sequence[Command], deadline: float) -> list[Any]:
        """Sends the commands together, to the server that has the key, and returns their answers, errors as values.

        Raises NotConnected when not all answers came, in which case any of the commands may have been executed.
        """
        try:
            connection = self._connect(self._address(key), deadline)
        except ConfigError as error:
            # Of another node of the cluster: `open` was content.
            raise NotConnected(str(error), code="bad_config") from error
        packed = b"".join(map(packed_command, commands))
        with self._busy:
            try:
                self._alive(connection).settimeout(left(deadline))
                connection.send_packed_command([packed], check_health=False)
                return [self._answer(connection, number, deadline) for number in range(len(commands))]
            except (RedisError, OSError) as error:
                raise self.translated(error) from error

    def largest_text_bytes(self, deadline: float) -> int:
        """The server's limit, beyond which it hangs up; the default one where it may not be asked."""
        try:
            return int(self.ask(None, "CONFIG", "GET", "proto-max-bulk-len", deadline=deadline)[1])
        except (ResponseError, IndexError):
            return LARGEST_TEXT_BYTES

    def slot(self, key: str) -> int:
        """Keys of one slot may be written in one transaction; without a cluster there is one slot alone."""
        return key_slot(key.encode()) if self._is_cluster else 0

    def translated(self, error: BaseException, *, opening: bool = False) -> RelayError:
        problem = ERRORS.translated(error, self._where, opening=opening)
        if self._closed and isinstance(problem, NotConnected):
            problem.code = "closed"
        return problem

    def close(self) -> None:
        """May come from another thread: an exchange under way then raises NotConnected."""
        self._closed = True
        for connection in list(self._connections.values()):
            sock = connection._sock
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        taken = self._busy.acquire(timeout=_CLOSE_SECONDS)
        try:
            for connection in list(self._connections.values()):
                connection.disconnect()
            self._connections.clear()
        finally:
            if taken:
                self._busy.release()

    def _answer(self, connection: Connection, number: int, deadline: float) -> Any:
        if number % _REPLIES_BETWEEN_LOOKS == 0:
            self._alive(connection).settimeout(left(deadline))
        try:
            return connection.read_response()
        except ResponseError as error:
            return error

    def _alive(self, connection: Connection) -> Any:
        """Its socket. redis-py's connection connects implicitly where there is none, which must not happen here."""
        if self._closed or connection._sock is None:
            raise NotConnected(f"{self._where}: the connection was closed", code="closed")
        return connection._sock

    def _address(self, key: str | None) -> Address:
        assert self._first is not None
        if key is None or not self._is_cluster:
            return self._first
        slot = self.slot(key)
        for first, last, address in self._slots:
            if first <= slot <= last:
                return address
        raise NotConnected(f"{self._where}: no node of the cluster has slot {slot} of {key!r}", code="cluster_down")

    def _connect(self, address: Address, deadline: float) -> Connection:
        known = self._connections.get((address.host, address.port))
        if known is not None:
            return known
        kind: Any = redis.connection.SSLConnection if address.encrypted else redis.connection.Connection
        options = connect_options(self._keys, address, self._where)
        seconds = left(deadline)
        connection = kind(socket_timeout=seconds, socket_connect_timeout=seconds, socket_keepalive=True, **options)
        with self._busy:
            try:
                if self._closed:
                    raise NotConnected(f"{self._where}: the connection was closed", code="closed")
                connection.connect()
                self._introduce(connection)
            except (RedisError, OSError) as error:
                connection.disconnect()
                raise self.translated(error, opening=True) from error
            self._connections[(address.host, address.port)] = connection
        return connection

    def _introduce(self, connection: Connection) -> None:
        """Best effort: it helps those who read CLIENT LIST, and the ACL user may not be allowed to."""
        connection.send_command("CLIENT", "SETNAME", self._name, check_health=False)
        with contextlib.suppress(ResponseError):
            connection.read_response()
        connection.send_command("PING", check_health=False)
        with contextlib.suppress(ResponseError):
            connection.read_response()

    def _learn_slots(self, address: Address, deadline: float) -> None:
        connection = self._connect(address, deadline)
        try:
            with self._busy:
                self._alive(connection).settimeout(left(deadline))
                connection.send_command("CLUSTER", "SLOTS", check_health=False)
                ranges = connection.read_response()
        except (RedisError, OSError) as error:
            raise self.translated(error, opening=True) from error
        self._slots = [
            # A node that does not know its own address says nothing, or "?": it is the one that was asked.
            (first, last, replace(address, host=(node[0] or b"?").decode().replace("?", address.host), port=node[1]))
            for first, last, node, *_ in ranges
        ]


def packed_command(command: Command) -> bytes:
    """A command as it goes over the wire."""
    # Its annotation is a tuple of one.
    words: Any = tuple(command)
    data: bytes = hiredis.pack_command(words)
    return data


def client_name(pipeline: str) -> str:
    """As CLIENT LIST shows it: Redis takes no spaces there."""
    return "tide-relay:" + "".join(letter if "!" <= letter <= "~" else "_" for letter in pipeline)
