"""`relay receive`: lines from standard input become rows of an inbox, as a pipeline of the source type `stdin` says."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import click
import psycopg

from relay.backends.stdio.source import StdinConfig
from relay.cli.base import Verb, database, json_option, load_settings, postgres_option, print_json, tell
from relay.cli.input_lines import InputLine, batches
from relay.database.connection import Connection, storable
from relay.drains.inbox import REFUSALS, write, write_each
from relay.errors import ConfigError, NotConnected, RelayError
from relay.models import Failure, InboxRow, Received
from relay.operations.base import rows
from relay.pipelines.config import ReverseConfig, parse_reverse
from relay.sql import query
from relay.wire.decode import Decoder

TRANSACTION_LINES = 500
TRANSACTION_BYTES = 16 * 1024 * 1024


@dataclass(slots=True)
class Done:
    """What is committed for certain."""

    stored: int = 0
    """New rows."""
    known: int = 0
    """Lines whose event id the inbox had already."""
    dead_letters: int = 0
    last_line: int = 0


@click.command(cls=Verb, short_help="Stores lines from standard input in an inbox.")
@click.argument("pipeline")
@click.option("--file", "file", type=click.File("rb"), default="-", metavar="F", help="Default: - (standard input).")
@click.option(
    "--run", "run", metavar="NAME", help="Name of this input; the same line of the same input is stored once."
)
@postgres_option
@json_option
def receive(pipeline: str, file: BinaryIO, run: str | None, postgres_url: str | None, as_json: bool) -> None:
    """Stores lines in the inbox of PIPELINE, a reverse pipeline whose source_type is stdin.

    Each line is one message, decoded as the pipeline says (wire_format, event_id ...). They are stored in transactions
    of 500 lines, or of what came within a moment. A line that cannot be stored becomes a dead letter; where on_invalid
    is "stop" it ends the input, and nothing of its transaction is stored. Blank lines are passed over.

    The event id is stdin/RUN/LINE NUMBER. Without --run each call is an input of its own; the name that it took is
    printed, and a call that was cut short is repeated with it: what is stored already is known by its id.

    \b
    Exit codes: 0 every line was stored, was known or is a dead letter; 1 not every line (it says up to which one, and
    how to go on); 2 wrong usage.

    \b
    Example:
      relay receive lines-to-orders --run 2025-03-01 < orders.jsonl
      some-program | relay receive lines-to-orders
    """
    if run is not None and not 0 < len(run) <= 200:
        raise click.BadParameter("a name has 1 to 200 characters", param_hint="--run")
    name = run or f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
    settings = load_settings(postgres_url=postgres_url)
    if file.isatty():
        tell("reading lines; end with Ctrl-D")
    done = Done()
    try:
        with database(settings, "receive") as connection:
            inbox = _receive(connection, pipeline, file, name, done)
    except RelayError as error:
        again = f"Go on with --run {name} and the same input" if run or done.last_line else "Nothing was stored"
        raise type(error)(f"{error}. Stored up to line {done.last_line}. {again}") from error
    except KeyboardInterrupt:
        tell(f"stored up to line {done.last_line}; go on with --run {name} and the same input")
        raise
    if as_json:
        counts = {"stored": done.stored, "known": done.known, "dead_letters": done.dead_letters}
        print_json({"pipeline": pipeline, "inbox": inbox, "run": name, **counts, "last_line": done.last_line})
    else:
        more = [f"{done.known} were there already"] if done.known else []
        more += [f"{done.dead_letters} are dead letters"] if done.dead_letters else []
        click.echo(f"stored {done.stored} messages in {inbox}{''.join(f', {text}' for text in more)} (run {name})")
    if done.dead_letters:
        tell(f"see what was refused: relay dead-letter list {pipeline}")


def _receive(connection: Connection, pipeline: str, file: BinaryIO, run: str, done: Done) -> str:
    inbox, config = _configured(connection, pipeline)
    decoder = config.make_decoder(pipeline)
    assert isinstance(config.source, StdinConfig)
    limit_bytes = config.source.max_line_bytes
    for batch in batches(file, limit_bytes, min(TRANSACTION_LINES, config.pipeline.batch_size), TRANSACTION_BYTES):
        work = _Batch(pipeline, inbox, run, decoder, batch, stops=config.pipeline.on_invalid == "stop")
        try:
            work.store(connection, done)
        except psycopg.Error as error:
            if connection.broken:
                raise NotConnected(f"PostgreSQL was lost: {error}") from error
            raise
    return inbox


def _configured(connection: Connection, pipeline: str) -> tuple[str, ReverseConfig]:
    found = rows(connection, "pipeline_list", names=[pipeline])
    if not found:
        raise ConfigError(f"there is no pipeline {pipeline!r}; see relay pipeline list")
    [row] = found
    if row["direction"] != "reverse" or row["config"].get("source_type") != "stdin":
        raise ConfigError(
            f"pipeline {pipeline!r} does not read standard input; "
            'make one: select tide.relay_set_inbox(name, inbox, \'{"source_type": "stdin"}\')'
        )
    if not row["enabled"]:
        raise ConfigError(f"pipeline {pipeline!r} is disabled; enable it: relay pipeline enable {pipeline}")
    return row["inbox"], parse_reverse(row["config"], resolved=True)


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

    def store(self, connection: Connection, done: Done) -> None:
        with connection.transaction():
            new = self._write(connection)
            for received, failure in self._dead:
                letter = {"event_id": storable(received.id), "body": received.body, "subject": received.subject}
                why = {"code": failure.code, "reason": storable(failure.reason)}
                names = {"pipeline": self._pipeline, "inbox": self._inbox}
                connection.execute(query("receive_dead_letter"), names | letter | why)
        done.stored += new
        done.known += len(self._rows) - new
        done.dead_letters += len(self._dead)
        done.last_line = self._last_line

    def _write(self, connection: Connection) -> int:
        try:
            with connection.transaction():
                return write(connection, self._inbox, [row for _, row in self._rows])
        except REFUSALS:
            self._sort_out(connection)
            return write(connection, self._inbox, [row for _, row in self._rows])

    def _sort_out(self, connection: Connection) -> None:
        """Rows that PostgreSQL does not take become dead letters."""
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
