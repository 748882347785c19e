"""What all operations share: a session, rows as typed results, and one error tree.

An operation takes a connection in autocommit (or settings, where it needs more than one session), returns frozen
values, and raises the errors of `relay.errors`. It prints nothing: the command line, the API and the console do that.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from psycopg.rows import dict_row

from relay.database.connection import Connection, connect, database_errors
from relay.database.migrate import require_compatible
from relay.errors import ConfigError
from relay.reasons import reason_of
from relay.settings import Settings
from relay.sql import query

__all__ = ["LARGEST_ID", "Connection", "counted", "execute", "one", "rows", "seconds_text", "session", "transaction"]

LARGEST_ID = 2**63 - 1
"""Of messages, dead letters and replays."""


@contextmanager
def session(settings: Settings, application: str) -> Iterator[Connection]:
    """A connection in autocommit on a schema that this version can work with. Raises RelayError, also for its body."""
    with closing(connect(settings, application)) as connection, refusals():
        require_compatible(connection)
        yield connection


@contextmanager
def transaction(connection: Connection, *, undo: bool = False) -> Iterator[None]:
    """All of it or nothing; with `undo` nothing in any case. Raises RelayError."""
    with refusals(), connection.transaction(force_rollback=undo):
        yield


@contextmanager
def refusals() -> Iterator[None]:
    """What our SQL functions refuse becomes a ConfigError with their text and hint; other errors as everywhere."""
    with database_errors():
        try:
            yield
        except psycopg.DataError as error:
            raise ConfigError(reason_of(error)) from error
        except UnicodeEncodeError as error:
            raise ConfigError("a text is not valid Unicode: it has half of a character") from error
        except psycopg.Error as error:
            if error.diag.source_function == "exec_stmt_raise":
                raise ConfigError(reason_of(error)) from error
            raise


def rows(connection: Connection, statement: str, /, **parameters: Any) -> list[dict[str, Any]]:
    """The rows of a named statement. Raises RelayError."""
    with refusals(), connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query(statement), parameters).fetchall()


def one(connection: Connection, statement: str, /, **parameters: Any) -> Any:
    """The only value of the only row. Raises RelayError."""
    [row] = rows(connection, statement, **parameters)
    [value] = row.values()
    return value


def execute(connection: Connection, statement: str, /, **parameters: Any) -> None:
    """Runs a named statement for its effect. Raises RelayError."""
    with refusals():
        connection.execute(query(statement), parameters)


def counted(number: int, one: str, many: str = "") -> str:
    """A number for people: `1 job`, `2 jobs`; what has another plural, or a verb, says how: `is`, `are`."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def seconds_text(seconds: float) -> str:
    """A duration for people: `0.4 s`, `12 s`, `3 min`, `2.5 h`, `4 d`."""
    for limit, unit, divisor, digits in (
        (10, "s", 1, 1),
        (120, "s", 1, 0),
        (7200, "min", 60, 0),
        (172_800, "h", 3600, 1),
    ):
        if seconds < limit:
            return f"{seconds / divisor:.{digits}f} {unit}"
    return f"{seconds / 86_400:.0f} d"
