"""Connections to the Redis of the broker, their time limits, and what their errors mean."""

import re
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

CALL_TIMEOUT_SECONDS = 2.0
WRONG_TYPE = "WRONGTYPE"

Command = tuple[str | bytes | int | float, ...]


class _Answer(NamedTuple):
    """Why a server takes no writes."""

    words: str
    """How the answer begins, on its own or behind what a script says of itself."""
    kind: type[Exception] | None
    """The class that redis-py makes of it, without those words."""
    code: str
    meaning: str


_CLUSTER = (
    "it is a node of a Redis Cluster, which spreads the keys of a queue over its nodes: the broker needs a single "
    "server, or a primary with replicas"
)
_REPLICA = "it is a replica, which takes no writes: name the primary, or wait until the name leads to it"
_UNNAMED = "it needs a password: put it into RELAY_BROKER_URL, as redis://:PASSWORD@HOST:PORT/0"
_UNKNOWN = "it does not know this user with this password: correct them in RELAY_BROKER_URL"
_ANSWERS = (
    _Answer("READONLY", redis.exceptions.ReadOnlyError, "read_only", _REPLICA),
    _Answer("UNBLOCKED force", None, "read_only", _REPLICA),
    _Answer("MOVED", redis.exceptions.MovedError, "cluster", _CLUSTER),
    _Answer("ASK", redis.exceptions.AskError, "cluster", _CLUSTER),
    _Answer("TRYAGAIN", redis.exceptions.TryAgainError, "cluster", _CLUSTER),
    _Answer("CROSSSLOT", redis.exceptions.ClusterCrossSlotError, "cluster", _CLUSTER),
    _Answer("Script attempted to access", None, "cluster", _CLUSTER),
    _Answer("MASTERDOWN", redis.exceptions.MasterDownError, "unavailable", "it is a replica that lost its primary"),
    _Answer("CLUSTERDOWN", redis.exceptions.ClusterDownError, "cluster", _CLUSTER),
    _Answer(
        "OOM", redis.exceptions.OutOfMemoryError, "out_of_memory",
        "it is out of memory and may remove nothing (maxmemory, maxmemory-policy): make room, or raise maxmemory",
    ),
    _Answer("MISCONF", None, "unavailable", "it cannot write to its disk, and takes no writes: see its log"),
    _Answer("NOREPLICAS", None, "not_replicated", "it has fewer replicas than its min-replicas-to-write asks for"),
    _Answer("LOADING", redis.exceptions.BusyLoadingError, "loading", "it loads its data after a start: wait"),
    _Answer("BUSY", None, "unavailable", "it runs a script that does not end: see SCRIPT KILL"),
    _Answer("HELLO must be called", None, "auth", _UNNAMED),
    _Answer("NOAUTH", None, "auth", _UNNAMED),
    _Answer("Authentication required", None, "auth", _UNNAMED),
    _Answer("WRONGPASS", None, "auth", _UNKNOWN),
    _Answer("invalid username-password pair", None, "auth", _UNKNOWN),
    _Answer("NOPERM", redis.exceptions.NoPermissionError, "auth", "its ACL user lacks a permission"),
)  # fmt: skip
# A script of Redis 6 says "Error running script (call to f_...): @user_script:14: @user_script: 14: -READONLY ...".
_BEFORE = r"(?:^|@user_script: ?\d+: ?-?)(?:ERR )?"
_PATTERNS = [(re.compile(rf"{_BEFORE}{answer.words}\b"), answer) for answer in _ANSWERS]

# Authentication errors are connection errors to redis-py, so they come first.
_CODES: list[tuple[type[Exception], str]] = [
    (redis.exceptions.AuthenticationError, "auth"),
    (redis.exceptions.AuthorizationError, "auth"),
    (redis.exceptions.TimeoutError, "timeout"),
    (redis.exceptions.ConnectionError, "not_connected"),
]


def connect(url: str, timeout_seconds: float, name: str | None = None) -> redis.Redis:
    """`name` is what CLIENT LIST shows."""
    # No retries here: the callers know how long they may wait, and a pooled connection that the server closed
    # meanwhile is detected and replaced before it is used.
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=CALL_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        client_name=name,
    )


class Line:
    """A connection of its own, for what must be quick: what a pool of redis-py does for each command takes longer than
    what Redis does. Threads take turns."""

    def __init__(self, client: redis.Redis) -> None:
        self._connection: Any = client.connection_pool.make_connection()
        self._turn = threading.Lock()

    def ask(self, *commands: Command) -> list[Any]:
        """Sends all commands at once; what Redis answers to each, where an error is a value too.

        Raises RedisError if the connection is lost: what Redis said before it closed it, if it said why.
        """
        with self._turn:
            self._replace_closed()
            self._connection.send_packed_command(self._connection.pack_commands(commands))
            answers: list[Any] = []
            for _ in commands:
                try:
                    answers.append(self._connection.read_response())
                except redis.exceptions.ResponseError as error:
                    answers.append(error)
                except redis.exceptions.RedisError as error:
                    raise next((said for said in answers if isinstance(said, Exception)), error) from None
            return answers

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Any:
        """What the script returns. Raises RedisError."""
        [answer] = self.ask(evalsha(script, keys, arguments))
        if isinstance(answer, redis.exceptions.NoScriptError):
            return script(keys=keys, args=arguments)  # which loads it
        if isinstance(answer, redis.exceptions.RedisError):
            raise answer
        return answer

    def close(self) -> None:
        """From any thread. The next call connects again."""
        self._connection.disconnect()

    def _replace_closed(self) -> None:
        """Nothing is to be read between calls, unless the server has closed the connection meanwhile."""
        try:
            is_usable = not self._connection.can_read()
        except (redis.exceptions.RedisError, OSError):
            is_usable = False
        if not is_usable:
            self._connection.disconnect()


def evalsha(script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Command:
    """The command that runs a script, if the server has it."""
    return ("EVALSHA", script.sha, len(keys), *keys, *arguments)


def forget_connections(client: redis.Redis) -> None:
    """The next call connects again: a name may lead to another server by now. Calls under way are left alone."""
    client.connection_pool.disconnect(inuse_connections=False)


def is_wrong_type(error: redis.exceptions.RedisError) -> bool:
    """Whether it is a key that another client has made, and no fault of the server."""
    return WRONG_TYPE in str(error)


def code_of(error: redis.exceptions.RedisError) -> str:
    if answer := _answer(error):
        return answer.code
    return next((code for kind, code in _CODES if isinstance(error, kind)), "refused")


def described(error: redis.exceptions.RedisError) -> str:
    """What the error means, for people. It may contain secrets."""
    answer = _answer(error)
    return f"{answer.meaning} ({error})" if answer else str(error)


def _answer(error: redis.exceptions.RedisError) -> _Answer | None:
    for pattern, answer in _PATTERNS:
        if (answer.kind is not None and isinstance(error, answer.kind)) or pattern.search(str(error)):
            return answer
    return None
