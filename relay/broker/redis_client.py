"""Connections to the Redis of the broker, their time limits, and what their errors mean."""

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

CALL_TIMEOUT_SECONDS = 2.0

LOST = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)


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


def code_of(error: redis.exceptions.RedisError) -> str:
    # Authentication errors are connection errors to redis-py, so they come first.
    table: list[tuple[type[Exception], str]] = [
        (redis.exceptions.AuthenticationError, "auth"),
        (redis.exceptions.AuthorizationError, "auth"),
        (redis.exceptions.NoPermissionError, "auth"),
        (redis.exceptions.TimeoutError, "timeout"),
        (redis.exceptions.ConnectionError, "not_connected"),
    ]
    return next((code for kind, code in table if isinstance(error, kind)), "refused")
