"""`relay restored`: what must be moved ahead after the database went back to an earlier time."""

import time
from typing import Any

import click
from psycopg import errors as pg

from relay.cli.base import (
    FAILED,
    Verb,
    database,
    json_option,
    load_settings,
    postgres_option,
    print_json,
    rows,
    tell,
)
from relay.database.connection import Connection
from relay.operations.status import is_alive

POLL_SECONDS = 0.2

_AGAIN = "goes on from its restored offset: delivers again, under the same ids, what it delivered since"
_POSITION = "goes on from its restored position: stores again what the source still has; what is there is left out"
_ACKNOWLEDGED = "cannot go back by itself: what was acknowledged since is not given again"
_SENDER = "has nothing to go back to: the sender must send again what was answered since"
_FORWARD = {
    "kafka": f"{_AGAIN}; with transactional, passes over what Kafka has of the last batches",
    "redis": f"{_AGAIN}; with exactly_once, entries that were trimmed become dead letters (id_passed)",
    "object_storage": f"{_AGAIN}; the object in hand under its name, others may be cut in another way and overlap",
    "inbox": f"{_AGAIN}; the inbox leaves out what it has",
}
_REVERSE = {
    "kafka": _POSITION,
    "file": _POSITION,
    "outbox": _POSITION,
    "redis": f"{_ACKNOWLEDGED}; set its group back: XGROUP SETID",
    "nats": f"{_ACKNOWLEDGED}; give it another consumer with deliver_policy by_start_sequence",
    "rabbitmq": f"{_ACKNOWLEDGED}; the sender must send it again",
    "sqs": f"{_ACKNOWLEDGED}; the sender must send it again",
    "webhook": _SENDER,
    "stdin": _SENDER,
}


@click.command(cls=Verb, short_help="After a restore to an earlier time: no id is given twice.")
@click.argument("outboxes", nargs=-1, metavar="[OUTBOX]...")
@click.option(
    "--margin",
    type=click.IntRange(1000, 1_000_000_000),
    default=1_000_000,
    show_default=True,
    help="How many ids and epochs are skipped: more than were given since that time.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option(
    "--timeout",
    "timeout_seconds",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="How long to try again while transactions are in the way.",
)
@postgres_option
@json_option
@click.pass_context
def restored(
    ctx: click.Context, outboxes: tuple[str, ...], margin: int, dry_run: bool, timeout_seconds: float,
    postgres_url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Has every OUTBOX (all of them by default) skip ids, so that new messages get none that were given before.

    For a database that went back to an earlier time: a restore, or the promotion of an asynchronous standby. Receivers
    know a message by its id, and drop a new one under an old id without a word. Epochs skip as well, so that no drain
    from before fits. Then it says what each pipeline does about the time that is gone.

    Publishers, schedulers and workers may run: nothing is delivered twice or lost by it. But only what is published
    after it has new ids, so call it first. Calling it again skips once more, and harms nothing: ids have 63 bits.

    \b
    Exit codes: 0 every outbox skipped; 1 transactions were in the way of one, or it is not there; 2 wrong usage.

    \b
    Example:
      relay restored --dry-run
      relay restored --margin 50000000
    """
    with database(load_settings(postgres_url=postgres_url), "restored") as connection:
        skips = _planned(connection, outboxes, margin)
        if not dry_run:
            rows(connection, "skip_epochs", margin=margin)
            deadline = time.monotonic() + timeout_seconds
            for skip in skips:
                _skip(connection, skip, margin, deadline)
        pipelines = _pipelines(connection)
        alive = [row for row in rows(connection, "status_schedulers") if is_alive(row)]
    if as_json:
        print_json({"dry_run": dry_run, "outboxes": skips, "pipelines": pipelines})
    else:
        _show(skips, pipelines, dry_run=dry_run)
    if alive:
        tell(f"{len(alive)} schedulers are running; after a restore, start them only when this is done")
    if failed := [skip for skip in skips if skip["error"]]:
        for skip in failed:
            tell(skip["error"])
        ctx.exit(FAILED)


def _planned(connection: Connection, outboxes: tuple[str, ...], margin: int) -> list[dict[str, Any]]:
    """Outbox, last_id, first_id (of the next message) and error, of each. Raises ConfigError if one is not there."""
    names = list(dict.fromkeys(outboxes)) or [row["name"] for row in rows(connection, "skip_outboxes")]
    return [rows(connection, "skip_plan", outbox=name, margin=margin)[0] | {"error": None} for name in names]


def _skip(connection: Connection, skip: dict[str, Any], margin: int, deadline: float) -> None:
    while True:
        try:
            [done] = rows(connection, "skip_ids", outbox=skip["outbox"], margin=margin)
        except pg.LockNotAvailable as error:
            if time.monotonic() + POLL_SECONDS >= deadline:
                skip["error"] = f"{error.diag.message_primary}. {error.diag.message_hint}"
                return
            time.sleep(POLL_SECONDS)
        else:
            skip["first_id"] = done["first_id"]
            return


def _pipelines(connection: Connection) -> list[dict[str, str]]:
    found = []
    for row in rows(connection, "pipeline_list", names=None):
        kinds, key = (_FORWARD, "sink_type") if row["direction"] == "forward" else (_REVERSE, "source_type")
        kind = str(row["config"].get(key))
        advice = kinds.get(kind, _AGAIN if kinds is _FORWARD else _ACKNOWLEDGED)
        found.append({"pipeline": row["name"], "type": kind, "then": advice})
    return found


def _show(skips: list[dict[str, Any]], pipelines: list[dict[str, str]], *, dry_run: bool) -> None:
    says = "would begin at" if dry_run else "begin at"
    for skip in skips:
        if not skip["error"]:
            click.echo(f"outbox {skip['outbox']}: new ids {says} {skip['first_id']} (last given: {skip['last_id']})")
    for pipeline in pipelines:
        click.echo(f"pipeline {pipeline['pipeline']} ({pipeline['type']}): {pipeline['then']}")
