"""Publishing lines of JSON to an outbox, in transactions of bounded size."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

import psycopg

from relay.errors import ConfigError, NotConnected
from relay.operations.base import Connection, refusals
from relay.operations.json_lines import LONGEST_LINE_BYTES, BadLine, Line, read_lines
from relay.reasons import reason_of
from relay.sql import query

TRANSACTION_LINES = 500
# Large lines make a transaction of fewer, so that memory stays bounded here and in the server.
TRANSACTION_BYTES = 16 * 1024 * 1024
# Blanks, escapes and names of members may make a line longer than the message on it, which has the limit.
LINE_FACTOR = 8

# How PostgreSQL refuses what is JSON all the same; the second is nesting that exceeds its stack.
_NOT_JSON = (psycopg.DataError, psycopg.errors.StatementTooComplex)
_OF_ARRAY = re.compile(r"message (\d+) of the array: ")


@dataclass(frozen=True, slots=True)
class Published:
    """What is committed so far."""

    outbox: str
    messages: int = 0
    first_id: int | None = None
    last_id: int | None = None
    last_line: int = 0
    read_bytes: int = 0
    """Of the file, up to the end of that line."""
    ignored: frozenset[str] = frozenset()
    """Members beside `payload` that mean nothing here."""


def publish_lines(connection: Connection, outbox: str, file: BinaryIO) -> Iterator[Published]:
    """Publishes the lines in their order; yields after each transaction what is committed by then.

    Raises ConfigError that names a line that cannot be published: nothing of its transaction is. Raises NotConnected if
    PostgreSQL is lost, which names the lines that may have been published or not.
    """
    done = Published(outbox)
    # An outbox that takes nothing is known before the first line, and if there is none.
    with refusals():
        _publish(connection, outbox, [])
    try:
        for batch, read_bytes in _transactions(file, _longest_line(connection, outbox)):
            with refusals():
                ids = _publish(connection, outbox, batch)
            done = replace(
                done,
                messages=done.messages + len(ids),
                first_id=ids[0] if done.first_id is None else done.first_id,
                last_id=ids[-1],
                last_line=batch[-1].number,
                read_bytes=read_bytes,
                ignored=done.ignored.union(*(line.ignored for line in batch)),
            )
            yield done
    except BadLine as error:
        raise ConfigError(str(error)) from error


def _longest_line(connection: Connection, outbox: str) -> int:
    """So that what is far too large is neither kept in memory, nor sent."""
    with refusals():
        row = connection.execute(query("outbox_limit"), {"outbox": outbox}).fetchone()
    assert row
    return min(LONGEST_LINE_BYTES, LINE_FACTOR * int(row[0]))


def _transactions(file: BinaryIO, longest_bytes: int) -> Iterator[tuple[list[Line], int]]:
    batch: list[Line] = []
    size, read_bytes = 0, 0
    for line, read_bytes in read_lines(file, longest_bytes):
        batch.append(line)
        size += len(line.payload) + len(line.headers)
        if len(batch) >= TRANSACTION_LINES or size >= TRANSACTION_BYTES:
            yield batch, read_bytes
            batch, size = [], 0
    if batch:
        yield batch, read_bytes


def _publish(connection: Connection, outbox: str, batch: list[Line]) -> list[int]:
    """One statement, so one transaction; the ids. Raises BadLine, NotConnected, or an error of psycopg."""
    parameters = {
        "outbox": outbox,
        "payloads": [line.payload for line in batch],
        "keys": [line.key for line in batch],
        "headers": [line.headers for line in batch],
    }
    try:
        row = connection.execute(query("publish_many"), parameters).fetchone()
    except psycopg.Error as error:
        if explained := _explained(connection, batch, error):
            raise explained from error
        raise
    assert row
    return list(row[0])


def _explained(connection: Connection, batch: list[Line], error: psycopg.Error) -> Exception | None:
    """The line that is to blame, or what is known when the session was lost. None: nothing to add."""
    if found := _OF_ARRAY.match(error.diag.message_primary or ""):
        hint = f". {error.diag.message_hint}" if error.diag.message_hint else ""
        line = batch[int(found[1]) - 1]
        return BadLine(line.number, (error.diag.message_primary or "")[found.end() :] + hint)
    if connection.broken:
        lines = f"lines {batch[0].number} to {batch[-1].number}"
        return NotConnected(f"PostgreSQL was lost; {lines} may have been published or not: {reason_of(error)}")
    if isinstance(error, _NOT_JSON):
        return _refused_line(connection, batch)
    return None


def _refused_line(connection: Connection, batch: list[Line]) -> BadLine | None:
    """The line that PostgreSQL does not accept as JSON, such as one with the character 0: it is stricter than JSON."""
    for line in batch:
        try:
            connection.execute(query("publish_one_try"), {"payload": line.payload, "headers": line.headers})
        except _NOT_JSON as refused:
            detail = f". {refused.diag.message_detail}" if refused.diag.message_detail else ""
            return BadLine(line.number, f"PostgreSQL refuses it: {refused.diag.message_primary}{detail}")
    return None
