"""The sessions of the admin API: a few, opened when they are needed."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg_pool

from relay.database.connection import Connection, Pool, configure, connection_options, pooled, suit_pooler
from relay.database.migrate import require_compatible
from relay.operations.base import refusals
from relay.settings import Settings

SESSIONS = 8
"""How many requests reach the database at a time; others wait, for as long as a connection may take."""
_NAME = "tide-relay api admin"


class Sessions:
    """Safe from any thread."""

    def __init__(self, settings: Settings) -> None:
        def prepare(connection: Connection) -> None:
            suit_pooler(connection)
            configure(connection, settings)
            require_compatible(connection)

        self._pool: Pool = psycopg_pool.ConnectionPool(
            settings.postgres_url,
            kwargs=connection_options(settings, _NAME),
            configure=prepare,
            check=psycopg_pool.ConnectionPool.check_connection,
            min_size=0,
            max_size=SESSIONS,
            timeout=settings.connect_timeout_seconds,
            max_idle=60.0,
            reconnect_timeout=settings.connect_timeout_seconds,
            open=True,
            name=_NAME,
        )

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """One in autocommit: what it has done is committed before the answer. Raises RelayError."""
        with refusals(), pooled(self._pool) as connection:
            yield connection

    def close(self) -> None:
        self._pool.close()
