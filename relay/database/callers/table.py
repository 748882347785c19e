"""From the type of an application's connection to how a statement is executed on it.

The type is told by its name and the names of those that it inherits from: nothing is imported that the application
has not imported. A row is a function, or a sentence that says what to give instead.
"""

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from relay.database.callers import methods

_SYNC: dict[str, Callable[..., Any]] = {
    "psycopg.Connection": methods.psycopg_connection,
    "psycopg.Cursor": methods.psycopg_cursor,
    "psycopg2.extensions.connection": methods.psycopg2_connection,
    "psycopg2.extensions.cursor": methods.psycopg2_cursor,
    "sqlalchemy.engine.base.Connection": methods.sqlalchemy_connection,
    "sqlalchemy.orm.session.Session": methods.sqlalchemy_session,
    "sqlalchemy.orm.scoping.scoped_session": methods.sqlalchemy_session,
    "django.utils.connection.ConnectionProxy": methods.django_connection,
    "django.db.backends.base.base.BaseDatabaseWrapper": methods.django_connection,
    "django.db.backends.utils.CursorWrapper": methods.django_cursor,
}
_ASYNC: dict[str, Callable[..., Any]] = {
    "psycopg.AsyncConnection": methods.psycopg_async_connection,
    "psycopg.AsyncCursor": methods.psycopg_async_cursor,
    "asyncpg.connection.Connection": methods.asyncpg_connection,
    "asyncpg.pool.PoolConnectionProxy": methods.asyncpg_connection,
    "sqlalchemy.ext.asyncio.engine.AsyncConnection": methods.sqlalchemy_async_connection,
    "sqlalchemy.ext.asyncio.session.AsyncSession": methods.sqlalchemy_async_session,
    "sqlalchemy.ext.asyncio.scoping.async_scoped_session": methods.sqlalchemy_async_session,
}
_ENGINE = "an engine has no transaction of yours: give a session, or a connection from engine.begin()"
_POOL = "a pool has no transaction of yours: give a connection that you have taken from it"
_FACTORY = "this makes sessions, and has no transaction of yours: give a session that it made"
_INSTEAD = {
    "sqlalchemy.engine.base.Engine": _ENGINE,
    "sqlalchemy.ext.asyncio.engine.AsyncEngine": _ENGINE,
    "sqlalchemy.orm.session.sessionmaker": _FACTORY,
    "sqlalchemy.ext.asyncio.session.async_sessionmaker": _FACTORY,
    "psycopg_pool.base.BasePool": _POOL,
    "psycopg2.pool.AbstractConnectionPool": _POOL,
    "asyncpg.pool.Pool": _POOL,
    "django.db.utils.ConnectionHandler": "give one connection, such as connections['default'], or its alias",
}
_KNOWN = (
    "psycopg 3 (Connection, AsyncConnection and their cursors), SQLAlchemy and SQLModel (Session, scoped_session,"
    " Connection, AsyncSession, async_scoped_session, AsyncConnection), asyncpg (Connection, also of a pool),"
    " psycopg2 (connection, cursor), Django (connection, connections[alias], or the alias)"
)


def method_of(connection: Any, *, is_async: bool) -> Callable[..., Any]:
    """How to call on it, or TypeError."""
    if isinstance(connection, str):
        return _of_text(connection, is_async=is_async)
    kind: Any = type(connection)
    return _of_type(kind, is_async=is_async)


@lru_cache(maxsize=64)
def _of_type(kind: type, *, is_async: bool) -> Callable[..., Any]:
    names = [f"{each.__module__}.{each.__qualname__}" for each in kind.__mro__]
    wanted, other = (_ASYNC, _SYNC) if is_async else (_SYNC, _ASYNC)
    for name in names:
        if name in wanted:
            return wanted[name]
    if any(name in other for name in names):
        raise TypeError(_other_colour(names[0], is_async=is_async))
    for name in names:
        if name in _INSTEAD:
            raise TypeError(f"{names[0]}: {_INSTEAD[name]}")
    raise TypeError(f"{names[0]} is not a connection that is known here. Known are: {_KNOWN}")


def _of_text(text: str, *, is_async: bool) -> Callable[..., Any]:
    """The alias of a database of Django's. What else a text may hold can be a secret, and is not repeated."""
    if "django.db" not in sys.modules or "://" in text or "=" in text:
        raise TypeError(
            f"a text is no connection, unless it is the alias of a database of Django's. Known are: {_KNOWN}"
        )
    if is_async:
        raise TypeError(_other_colour("django.db.connections[alias]", is_async=True))
    return methods.django_alias


def _other_colour(name: str, *, is_async: bool) -> str:
    if not is_async:
        return f"{name} is asynchronous: await the function of this name with _async"
    if name.startswith("django."):
        return f"{name} blocks its thread: call the function without _async, under asgiref's sync_to_async"
    return f"{name} blocks its thread: call the function without _async"
