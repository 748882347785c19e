"""`relay publish`: lines of JSON become messages of an outbox."""

import os
import sys
from contextlib import nullcontext
from typing import Any, BinaryIO

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from relay.cli.base import Verb, database, json_option, load_settings, postgres_option, print_json, say, tell
from relay.errors import RelayError
from relay.operations import outboxes
from relay.operations.base import counted
from relay.operations.publish import Published, publish_lines


@click.command(cls=Verb, short_help="Publishes JSON lines to an outbox.")
@click.argument("outbox")
@click.option("--file", "file", type=click.File("rb"), default="-", metavar="F", help="Default: - (standard input).")
@click.option("--create", is_flag=True, help="Create the outbox if it is missing.")
@postgres_option
@json_option
def publish(outbox: str, file: BinaryIO, create: bool, postgres_url: str | None, as_json: bool) -> None:
    """Publishes JSON lines to OUTBOX, in their order, in transactions of 500 lines (fewer if they are large).

    A line that is an object with a member "payload" may also have "key", "headers" and "type" (which becomes the header
    "type"); any other line is itself the payload. Values keep their text: no number loses a digit. Blank lines are
    skipped. An invalid line ends the run: nothing of its transaction is published, earlier transactions are.

    \b
    Exit codes: 0 everything published; 1 an error (the message says up to which line is published); 2 wrong usage.

    \b
    Example:
      relay publish orders --file orders.jsonl --create
      echo '{"key": "42", "type": "order.created", "payload": {"total": 9.90}}' | relay publish orders
    """
    settings = load_settings(postgres_url=postgres_url)
    if file.isatty():
        tell("reading lines of JSON; end with Ctrl-D")
    done = Published(outbox)
    try:
        with database(settings, "publish") as connection, _progress(file, as_json) as advance:
            if create and outboxes.create(connection, outbox):
                tell(f"created outbox {outbox}")
            for done in publish_lines(connection, outbox, file):
                advance(done)
    except RelayError as error:
        missing = " or: --create" if "tide.outbox_create(" in str(error) else ""
        raise type(error)(f"{error}{missing}. {_published(done)}") from error
    if done.ignored:
        tell(f"members beside payload that were ignored: {', '.join(sorted(done.ignored))}")
    if as_json:
        print_json({"outbox": outbox, "published": done.messages, "first_id": done.first_id, "last_id": done.last_id})
    else:
        ids = f", ids {done.first_id} to {done.last_id}" if done.messages else ""
        say(f"published {counted(done.messages, 'message')} to {outbox}{ids}")


def _published(done: Published) -> str:
    if not done.messages:
        return "Published nothing"
    return f"Published {counted(done.messages, 'message')}, up to line {done.last_line}"


def _progress(file: BinaryIO, as_json: bool) -> Any:
    """A context manager; gives what to call after each transaction."""
    if as_json or not sys.stderr.isatty() or file.isatty():
        return nullcontext(lambda _done: None)
    return _Bar(file)


class _Bar:
    """A progress bar over the bytes of the file, where their number is known."""

    def __init__(self, file: BinaryIO) -> None:
        status = os.fstat(file.fileno())
        self._bar = Progress(
            TextColumn("publishing"), BarColumn(), TaskProgressColumn(),
            TextColumn("messages: {task.fields[published]}"), TimeElapsedColumn(), console=Console(stderr=True),
        )  # fmt: skip
        self._task = self._bar.add_task("publishing", total=status.st_size or None, published=0)

    def __enter__(self) -> Any:
        self._bar.start()
        return lambda done: self._bar.update(self._task, completed=done.read_bytes, published=done.messages)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
