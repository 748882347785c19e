"""`relay receive`: lines from standard input become rows of an inbox, as a pipeline of the source type `stdin` says."""

import secrets
import time
from typing import BinaryIO

import click

from relay.cli.base import Verb, database, json_option, load_settings, postgres_option, print_json, say, tell
from relay.errors import RelayError
from relay.operations.base import counted
from relay.operations.receive import Stored, receive_lines


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

    Each line is one message, decoded as the pipeline is configured (wire_format, event_id ...). Lines are stored in
    transactions of 500, or of what arrives within a moment. A line that cannot be stored becomes a dead letter; if
    on_invalid is "stop", it ends the run, and nothing of its transaction is stored. Blank lines are skipped.

    The event id is stdin/RUN/LINE NUMBER. Without --run each call has a name of its own, which is printed. Repeat an
    interrupted call with that name: lines that are already stored are recognized by their id.

    \b
    Exit codes: 0 every line was stored, was known or is a dead letter; 1 an error (the message says up to which line is
    stored, and how to continue); 2 wrong usage.

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
    done = Stored(pipeline, "")
    try:
        with database(settings, "receive") as connection:
            for committed in receive_lines(connection, pipeline, file, name):
                done = committed
    except RelayError as error:
        again = f"Stored up to line {done.last_line}. Continue with --run {name} and the same input"
        raise type(error)(f"{error}. {again if run or done.last_line else 'Nothing was stored'}") from error
    except KeyboardInterrupt:
        tell(f"stored up to line {done.last_line}; continue with --run {name} and the same input")
        raise
    if as_json:
        counts = {"stored": done.stored, "known": done.known, "dead_letters": done.dead_letters}
        print_json({"pipeline": pipeline, "inbox": done.inbox, "run": name, **counts, "last_line": done.last_line})
    else:
        stored = counted(done.stored, "message")
        more = [f"{counted(done.known, 'was', 'were')} there already"] if done.known else []
        more += [counted(done.dead_letters, "is a dead letter", "are dead letters")] if done.dead_letters else []
        say(f"stored {stored} in {done.inbox}{''.join(f', {text}' for text in more)} (run {name})")
    if done.dead_letters:
        tell(f"see what was refused: relay dead-letter list {pipeline}")
