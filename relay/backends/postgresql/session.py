"""A session with another PostgreSQL: every call has an end, also when the server says nothing any more.

`statement_timeout` is the server's own limit, and a server that hangs does not keep it; so the wait for its answer has
the same limit here.
"""

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import errors as pg
from psycopg.abc import PQGen

from relay.backends.postgresql.parameters import bound
from relay.database.connection import VALUES, database_errors, suit_pooler, values
from relay.database.values import ADAPTERS
from relay.errors import ConfigError, MigrationError, NotConnected, RelayError
from relay.masking import mask
from relay.reasons import reason_of
from relay.sql import query

R = TypeVar("R")

# The server's limit comes first: it leaves a session that can be used again.
_GRACE_SECONDS = 0.5

# What a server says before a session has begun has no code that the client could read.
_NEEDS_OPERATOR = (
    "password authentication failed",
    "no password supplied",
    "authentication failed",
    "no pg_hba.conf entry",
    "permission denied for database",
    "certificate verify failed",
    "does not support SSL",
    "root certificate file",
)


class Session(psycopg.Connection[tuple[Any, ...]]):
    """A connection in autocommit. `limit_seconds` holds for each call from when `begin_call` was called."""

    limit_seconds = 10.0
    _deadline = float("inf")

    def begin_call(self) -> None:
        self._deadline = time.monotonic() + self.limit_seconds + _GRACE_SECONDS

    def wait(self, gen: PQGen[R], *args: Any, **options: Any) -> R:
        return super().wait(_until(self._deadline, gen), *args, **options)


def _until(deadline: float, gen: PQGen[R]) -> Generator[Any, Any, R]:
    """The same steps, as long as there is time: the client asks ten times a second, also when nothing came."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                raise pg.QueryCanceled("the server did not answer in time")
            wanted = gen.send(ready)
    except StopIteration as end:
        value: R = end.value
        return value


def connect(url: str, where: str, timeout_ms: int, application_name: str) -> Session:
    """A session of ours. Raises NotConnected, or ConfigError when someone must change something."""
    conninfo = bound(url, where)
    try:
        with errors(where):
            session = Session.connect(
                conninfo,
                **VALUES,
                autocommit=True,
                context=ADAPTERS,
                application_name=application_name,
                connect_timeout=max(2, round(timeout_ms / 1000)),
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
                tcp_user_timeout=timeout_ms,
            )
    except NotConnected as error:
        if any(words in str(error) for words in _NEEDS_OPERATOR):
            raise ConfigError(f"{error}; correct postgres_url") from error
        raise
    session.limit_seconds = timeout_ms / 1000
    try:
        with errors(where):
            session.begin_call()
            suit_pooler(session)
            session.execute(*values())
            session.execute(query("session"), {"statement_timeout": f"{timeout_ms}ms"})
            session.execute(query("short_lock_waits"))
    except RelayError:
        session.close()
        raise
    return session


@contextmanager
def errors(where: str) -> Generator[None]:
    """psycopg's errors as NotConnected or ConfigError, about `where`. Bugs stay bugs."""
    try:
        with database_errors():
            yield
    except NotConnected as error:
        raise NotConnected(f"{where}: {error}", code=error.code) from error
    except MigrationError as error:
        raise ConfigError(f"{where}: {error} in that database") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except psycopg.Error as error:
        # What is not in the common table must not end as a bug here.
        raise NotConnected(f"{where}: PostgreSQL: {mask(reason_of(error))}", code="rejected") from error
