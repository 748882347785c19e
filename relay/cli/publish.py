"""`relay publish`: lines of JSON become messages of an outbox, in transactions of 500."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import click
import psycopg
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from relay.cli.base import Verb, database, json_option, load_settings, postgres_option, print_json, tell
from relay.cli.json_lines import BadLine, Line, read_lines
from relay.database.connection import Connection
from relay.errors import ConfigError, NotConnected, RelayError
from relay.sql import query

TRANSACTION_LINES = 500
# A transaction of fewer lines where they are large, so that memory stays bounded here and in the server.
TRANSACTION_BYTES = 16 * 1024 * 1024

# How PostgreSQL refuses what is JSON all the same; nesting that exceeds its stack is the second.
_NOT_JSON = (psycopg.DataError, psycopg.errors.StatementTooComplex)
_OF_ARRAY = re.compile(r"message (\d+) of the array: ")


@dataclass(slots=True)
class Done:
    """What was published for certain."""

    published: int = 0
    first_id: int | None = None
    last_id: int | None = None
    last_line: int = 0
    ignored: set[str] = field(default_factory=set)


@click.command(cls=Verb, short_help="Publishes JSON lines to an outbox.")
@click.argument("outbox")
@click.option("--file", "file", type=click.File("rb"), default="-", metavar="F", help="Default: - (standard input).")
@click.option("--create", is_flag=True, help="Create the outbox if it is missing.")
@postgres_option
@json_option
def publish(outbox: str, file: BinaryIO, create: bool, postgres_url: str | None, as_json: bool) -> None:
    """Publishes JSON lines to OUTBOX, in their order, in transactions of 500 lines (fewer where they are large).

    A line that is an object with a member "payload" may also have "key", "headers" and "type" (which becomes the header
    "type"); any other line is itself the payload. Values keep their text: no number loses a digit. Blank lines are
    passed over. A bad line ends it: nothing of its transaction is published, the transactions before it are.

    \b
    Exit codes: 0 everything published; 1 not everything (it says up to which line); 2 wrong usage.

    \b
    Example:
      relay publish orders --file orders.jsonl --create
      echo '{"key": "42", "type": "order.created", "payload": {"total": 9.90}}' | relay publish orders
    """
    settings = load_settings(postgres_url=postgres_url)
    if file.isatty():
        tell("reading lines of JSON; end with Ctrl-D")
    done = Done()
    try:
        with database(settings, "publish") as connection, _progress(file, as_json) as advance:
            if create and _execute(connection, "outbox_create", outbox=outbox):
                tell(f"created outbox {outbox}")
            for batch, read_bytes in _transactions(file):
                _publish(connection, outbox, batch, done)
                advance(done.published, read_bytes)
    except BadLine as error:
        raise ConfigError(f"{error}. {_published(done)}") from None
    except RelayError as error:
        raise type(error)(f"{error}. {_published(done)}") from error
    if done.ignored:
        tell(f"members beside payload that were ignored: {', '.join(sorted(done.ignored))}")
    if as_json:
        print_json({"outbox": outbox, "published": done.published, "first_id": done.first_id, "last_id": done.last_id})
    else:
        ids = f", ids {done.first_id} to {done.last_id}" if done.published else ""
        click.echo(f"published {done.published} messages to {outbox}{ids}")


def _transactions(file: BinaryIO) -> Iterator[tuple[list[Line], int]]:
    batch: list[Line] = []
    size, read_bytes = 0, 0
    for line, read_bytes in read_lines(file):
        batch.append(line)
        size += len(line.payload) + len(line.headers)
        if len(batch) >= TRANSACTION_LINES or size >= TRANSACTION_BYTES:
            yield batch, read_bytes
            batch, size = [], 0
    if batch:
        yield batch, read_bytes


def _publish(connection: Connection, outbox: str, batch: list[Line], done: Done) -> None:
    """One statement, so one transaction. Raises BadLine, or RelayError."""
    texts = {
        "payloads": [line.payload for line in batch],
        "keys": [line.key for line in batch],
        "headers": [line.headers for line in batch],
    }
    try:
        ids = _execute(connection, "publish_many", outbox=outbox, **texts)
    except psycopg.Error as error:
        if explained := _explained(connection, batch, error):
            raise explained from error
        raise
    done.published += len(ids)
    done.first_id = ids[0] if done.first_id is None else done.first_id
    done.last_id, done.last_line = ids[-1], batch[-1].number
    done.ignored.update(name for line in batch for name in line.ignored)


def _execute(connection: Connection, statement: str, /, **parameters: Any) -> Any:
    row = connection.execute(query(statement), parameters).fetchone()
    return row[0] if row else None


def _explained(connection: Connection, batch: list[Line], error: psycopg.Error) -> Exception | None:
    """The line that is to blame, or what is known when the session was lost. None: nothing to add."""
    if found := _OF_ARRAY.match(error.diag.message_primary or ""):
        hint = f". {error.diag.message_hint}" if error.diag.message_hint else ""
        line = batch[int(found[1]) - 1]
        return BadLine(line.number, (error.diag.message_primary or "")[found.end() :] + hint)
    if connection.broken:
        lines = f"lines {batch[0].number} to {batch[-1].number}"
        return NotConnected(f"PostgreSQL was lost; {lines} may have been published or not: {error}")
    if isinstance(error, _NOT_JSON):
        return _refused_line(connection, batch)
    return None


def _refused_line(connection: Connection, batch: list[Line]) -> BadLine | None:
    """The line that PostgreSQL does not take as JSON, such as one with the character 0: it is stricter than JSON."""
    for line in batch:
        try:
            connection.execute(query("publish_one_try"), {"payload": line.payload, "headers": line.headers})
        except _NOT_JSON as refused:
            detail = f". {refused.diag.message_detail}" if refused.diag.message_detail else ""
            return BadLine(line.number, f"PostgreSQL refuses it: {refused.diag.message_primary}{detail}")
    return None


def _published(done: Done) -> str:
    if not done.published:
        return "Published nothing"
    return f"Published {done.published} messages, up to line {done.last_line}"


def _progress(file: BinaryIO, as_json: bool) -> Any:
    """A context manager; gives what to call with the messages published and the bytes read."""
    if as_json or not sys.stderr.isatty() or file.isatty():
        return nullcontext(lambda _published, _read_bytes: None)
    return _Bar(file)


class _Bar:
    """A progress bar over the bytes of the file, where their number is known."""

    def __init__(self, file: BinaryIO) -> None:
        status = os.fstat(file.fileno())
        self._bar = Progress(
            TextColumn("publishing"), BarColumn(), TaskProgressColumn(),
            TextColumn("{task.fields[published]} messages"), TimeElapsedColumn(), console=Console(stderr=True),
        )  # fmt: skip
        self._task = self._bar.add_task("publishing", total=status.st_size or None, published=0)

    def __enter__(self) -> Any:
        self._bar.start()
        return lambda published, read_bytes: self._bar.update(self._task, completed=read_bytes, published=published)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
