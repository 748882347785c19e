"""Writing rows of an inbox: a message becomes a row once, however often and by whichever program it is written.

PostgreSQL alone judges what can be stored. A batch is written as it is; only when PostgreSQL refuses it does
`write_each` search for the rows that are to blame, by halves.

What an error says of a row is known by the class of its SQLSTATE. A trigger of the application may raise anything, also
its own states: so a row is to blame unless the class is one of the server's or the session's. Some classes can be
either: a right that is missing for all rows, or for one under row-level security; a function that a trigger calls for
one event only. There a row is to blame if others of its batch were written.
"""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import errors

from relay.database.arrays import Bigints, Texts
from relay.database.connection import Connection
from relay.masking import mask
from relay.models import InboxRow
from relay.reasons import sentence_of
from relay.sql import query

_NEVER_OF_A_ROW = frozenset(["08", "0B", "25", "26", "28", "2D", "34", "3D", "3F", "40", "53", "55", "57", "58", "F0"])
_PERHAPS_OF_A_ROW = frozenset(["0A", "24", "2B", "42", "XX"])


class Refused(Exception):
    """PostgreSQL says of a row, not of itself, that it cannot be stored: it would say the same again."""

    def __init__(self, error: Exception) -> None:
        super().__init__(reason(error))


REFUSALS = (Refused,)


def write(connection: Connection, inbox: str, rows: Sequence[InboxRow]) -> int:
    """Writes rows in one statement and returns how many were new. Raises one of `REFUSALS` if any cannot be stored."""
    if not rows:
        return 0
    try:
        [(new,)] = connection.execute(query("inbox_write"), {"inbox": inbox, **columns(rows)}).fetchall()
    except (psycopg.Error, UnicodeEncodeError) as error:
        if _is_of_a_row(error):
            raise Refused(error) from error
        raise
    return int(new)


class RowErrors:
    """A context that passes over an error for which single rows may be to blame: `write_each` tells. Raises others."""

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        if isinstance(error, Refused):
            return True
        return isinstance(error, Exception) and (_is_of_a_row(error) or _is_perhaps_of_a_row(error))


def write_each(connection: Connection, inbox: str, rows: Sequence[InboxRow]) -> list[tuple[int, str]]:
    """Writes what can be stored, and returns (index, reason) of each row that cannot. Call it in a transaction.

    Raises what PostgreSQL says of something else than a row.
    """
    refused: list[tuple[int, str]] = []
    doubtful: list[tuple[int, Exception]] = []
    parts = [range(len(rows))]
    while parts:
        part = parts.pop()
        try:
            with connection.transaction():
                write(connection, inbox, [rows[index] for index in part])
        except (Refused, psycopg.Error) as error:
            certain = isinstance(error, Refused)
            if not certain and not _is_perhaps_of_a_row(error):
                raise
            if len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
            elif certain:
                refused.append((part[0], reason(error)))
            else:
                doubtful.append((part[0], error))
    if doubtful and len(doubtful) + len(refused) == len(rows):
        raise doubtful[0][1]
    return sorted(refused + [(index, reason(error)) for index, error in doubtful])


def _is_of_a_row(error: Exception) -> bool:
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if state is None:  # not sent at all: a text that PostgreSQL does not have
        return isinstance(error, errors.DataError | UnicodeEncodeError)
    return state[:2] not in _NEVER_OF_A_ROW | _PERHAPS_OF_A_ROW


def _is_perhaps_of_a_row(error: Exception) -> bool:
    return isinstance(error, psycopg.Error) and (error.sqlstate or "")[:2] in _PERHAPS_OF_A_ROW


def reason(error: Exception) -> str:
    """Why PostgreSQL refused a row, for people."""
    if isinstance(error, Refused):
        return str(error)
    return "PostgreSQL: " + mask(sentence_of(error))


def columns(rows: Sequence[InboxRow]) -> dict[str, Texts | Bigints | None]:
    """The rows as parameters of a statement that writes them: one array for each column, null if all of it is.

    There must be a row.
    """
    found = dict(zip(_ROW_PARAMETERS, zip(*rows, strict=True), strict=True))
    return {name: _array(name, values) for name, values in found.items()}


def _array(name: str, values: Sequence[Any]) -> Texts | Bigints | None:
    if values[0] is None and values.count(None) == len(values):
        return None
    return Bigints(values) if name == "event_sequences" else Texts(values)


_ROW_PARAMETERS = (
    "event_ids",
    "event_types",
    "sources",
    "aggregate_ids",
    "event_sequences",
    "payloads",
    "headers",
    "trace_ids",
)
NO_ROWS = dict.fromkeys(_ROW_PARAMETERS)
"""The parameters of a statement that may write rows, without any."""
