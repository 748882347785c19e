"""Writing rows of an inbox: a message becomes a row once, however often and by whichever program it is written.

PostgreSQL alone judges what can be stored. A batch is written as it is; only when PostgreSQL refuses it does
`write_each` search for the rows that are to blame, by halves.
"""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import errors

from relay.database.connection import Connection
from relay.masking import mask
from relay.models import InboxRow
from relay.sql import query

# What PostgreSQL says of a row, not of itself: it would say the same again.
REFUSALS = (
    errors.DataError,
    errors.IntegrityError,
    errors.ProgramLimitExceeded,
    errors.StatementTooComplex,
    errors.RaiseException,
    UnicodeEncodeError,
)


def write(connection: Connection, inbox: str, rows: Sequence[InboxRow]) -> int:
    """Writes rows in one statement and returns how many were new. Raises one of `REFUSALS` if any cannot be stored."""
    if not rows:
        return 0
    [(new,)] = connection.execute(query("inbox_write"), {"inbox": inbox, **columns(rows)}).fetchall()
    return int(new)


def write_each(connection: Connection, inbox: str, rows: Sequence[InboxRow]) -> list[tuple[int, str]]:
    """Writes what can be stored, and returns (index, reason) of each row that cannot. Call it in a transaction."""
    refused: list[tuple[int, str]] = []
    parts = [range(len(rows))]
    while parts:
        part = parts.pop()
        try:
            with connection.transaction():
                write(connection, inbox, [rows[index] for index in part])
        except REFUSALS as error:
            if len(part) == 1:
                refused.append((part[0], reason(error)))
            else:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
    return sorted(refused)


def reason(error: Exception) -> str:
    """Why PostgreSQL refused a row, for people."""
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return "PostgreSQL: " + mask(primary or " ".join(str(error).split()))


def columns(rows: Sequence[InboxRow]) -> dict[str, list[Any]]:
    """The rows as parameters of a statement that writes them: one array for each column. There must be a row."""
    return dict(zip(_ROW_PARAMETERS, map(list, zip(*rows, strict=True)), strict=True))


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
