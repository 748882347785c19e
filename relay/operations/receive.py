"""Storing lines in an inbox, as a pipeline of the source type `stdin` is configured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

import psycopg

from relay.backends.stdio.config import StdinSourceConfig
from relay.database.connection import storable
from relay.errors import ConfigError, NotConnected
from relay.inbox.rows import RowErrors, write, write_each
from relay.models import Failure, InboxRow, Received
from relay.operations.base import Connection, refusals
from relay.operations.input_lines import InputLine, batches
from relay.operations.pipelines import stored_one
from relay.pipelines.config import ReverseConfig, parse_reverse
from relay.reasons import reason_of
from relay.sql import query
from relay.wire.decode import Decoder

TRANSACTION_LINES = 500
TRANSACTION_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stored:
    """What is committed so far."""

    pipeline: str
    inbox: str
    stored: int = 0
    """New rows."""
    known: int = 0
    """Lines whose event id the inbox had already."""
    dead_letters: int = 0
    last_line: int = 0


def receive_lines(connection: Connection, pipeline: str, file: BinaryIO, run: str) -> Iterator[Stored]:
    """Stores the lines; yields at the start, and after each transaction, what is committed by then.

    The event id of a line is `stdin/<run>/<line number>`, so the same line of the same run is stored once. A line that
    cannot be stored becomes a dead letter; if the pipeline's `on_invalid` is `stop`, it raises ConfigError, and nothing
    of its transaction is stored. Raises ConfigError if the pipeline does not exist, is disabled or does not read
    standard input, NotConnected if PostgreSQL is lost.
    """
    inbox, config = _configured(connection, pipeline)
    decoder = config.make_decoder(pipeline)
    assert isinstance(config.source, StdinSourceConfig)
    done = Stored(pipeline, inbox)
    yield done
    max_lines = min(TRANSACTION_LINES, config.pipeline.batch_size)
    for lines in batches(file, config.source.max_line_bytes, max_lines, TRANSACTION_BYTES):
        batch = _Batch(pipeline, inbox, run, decoder, lines, stops=config.pipeline.on_invalid == "stop")
        with refusals():
            done = batch.store(connection, done)
        yield done


def _configured(connection: Connection, name: str) -> tuple[str, ReverseConfig]:
    pipeline = stored_one(connection, name)
    if pipeline.inbox is None or pipeline.type != "stdin":
        raise ConfigError(
            f"pipeline {name!r} does not read standard input; "
            'create one that does: relay pipeline set NAME INBOX --config \'{"source_type": "stdin"}\''
        )
    if not pipeline.enabled:
        raise ConfigError(f"pipeline {name!r} is disabled; enable it: relay pipeline enable {name}")
    return pipeline.inbox, parse_reverse(pipeline.config, resolved=True)


class _Batch:
    """Lines that are stored in one transaction."""

    def __init__(
        self, pipeline: str, inbox: str, run: str, decoder: Decoder, lines: Sequence[InputLine], *, stops: bool
    ) -> None:
        self._pipeline = pipeline
        self._inbox = inbox
        self._stops = stops
        self._last_line = lines[-1].number
        self._rows: list[tuple[Received, InboxRow]] = []
        self._dead: list[tuple[Received, Failure]] = []
        for line in lines:
            received = Received(f"stdin/{run}/{line.number}", line.body, {}, subject="stdin")
            row = decoder.decode(received)
            if isinstance(row, Failure):
                self._refuse(received, row)
            else:
                self._rows.append((received, row))

    def store(self, connection: Connection, done: Stored) -> Stored:
        """Adds what this batch has stored. Raises NotConnected, or an error of psycopg."""
        try:
            with connection.transaction():
                new = self._write(connection)
                self._bury(connection)
        except psycopg.Error as error:
            if connection.broken:
                raise NotConnected(f"PostgreSQL was lost: {reason_of(error)}") from error
            raise
        return replace(
            done,
            stored=done.stored + new,
            known=done.known + len(self._rows) - new,
            dead_letters=done.dead_letters + len(self._dead),
            last_line=self._last_line,
        )

    def _bury(self, connection: Connection) -> None:
        for received, failure in self._dead:
            letter = {"event_id": storable(received.id), "body": received.body, "subject": received.subject}
            why = {"code": failure.code, "reason": storable(failure.reason)}
            names = {"pipeline": self._pipeline, "inbox": self._inbox}
            connection.execute(query("receive_dead_letter"), names | letter | why)

    def _write(self, connection: Connection) -> int:
        with RowErrors(), connection.transaction():
            return write(connection, self._inbox, [row for _, row in self._rows])
        self._sort_out(connection)
        return write(connection, self._inbox, [row for _, row in self._rows])

    def _sort_out(self, connection: Connection) -> None:
        """Rows that PostgreSQL does not accept become dead letters."""
        with connection.transaction(force_rollback=True):
            refused = dict(write_each(connection, self._inbox, [row for _, row in self._rows]))
        for index, why in refused.items():
            self._refuse(self._rows[index][0], Failure(index, True, "rejected", why))
        self._rows = [row for index, row in enumerate(self._rows) if index not in refused]

    def _refuse(self, received: Received, failure: Failure) -> None:
        if self._stops:
            line = received.id.rpartition("/")[2]
            raise ConfigError(f"line {line} cannot be stored: {failure.reason} ({failure.code})")
        self._dead.append((received, failure))
