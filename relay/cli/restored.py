"""`relay restored`: after a database went back to an earlier time, no id is given twice."""

from dataclasses import asdict

import click

from relay.cli.base import FAILED, Verb, database, json_option, load_settings, postgres_option, print_json, say, tell
from relay.operations import restore
from relay.operations.base import counted
from relay.operations.restore import Restored


@click.command(cls=Verb, short_help="After a restore or a copy: skips the ids that were given since.")
@click.argument("outboxes", nargs=-1, metavar="[OUTBOX]...")
@click.option(
    "--margin",
    type=click.IntRange(1000, 1_000_000_000),
    default=1_000_000,
    show_default=True,
    help="How many ids and epochs to skip: more than were given since that time.",
)
@click.option(
    "--new-identity",
    "renew_identity",
    is_flag=True,
    help="The database is a copy of files, and its original goes on: use other queues than that.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option(
    "--timeout",
    "timeout_seconds",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="How long to retry while transactions block it.",
)
@postgres_option
@json_option
@click.pass_context
def restored(
    ctx: click.Context, outboxes: tuple[str, ...], margin: int, renew_identity: bool, dry_run: bool,
    timeout_seconds: float, postgres_url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Makes every OUTBOX (default: all) skip ids, so that no new message gets an id that was given before.

    For a database that went back to an earlier time: after a restore, or the promotion of an asynchronous standby.
    Receivers identify a message by its id, and silently drop a new one under an old id. Epochs skip as well, so that
    every drain from before is stale. Every number goes above what is stored, too: a copy by logical replication comes
    without the sequences, and its next ids would be ids that offsets have passed. Then it says what each pipeline does
    about the lost time.

    A database that was restored from a dump has other queues than its original. A copy of the files (a snapshot, a
    physical backup) has the same: if the original goes on and uses the same broker, give --new-identity.

    Publishers, schedulers and workers may run: this neither duplicates nor loses a message. But only messages that are
    published afterwards have new ids, so run it first. Running it again skips again, and is harmless: ids have 63 bits.

    \b
    Exit codes: 0 every outbox skipped; 1 transactions blocked one, or it does not exist, or an inbox was left; 2 wrong
    usage.

    \b
    Example:
      relay restored --dry-run
      relay restored --margin 50000000
    """
    with database(load_settings(postgres_url=postgres_url), "restored") as connection:
        done = restore.restored(
            connection, outboxes, margin=margin, timeout_seconds=timeout_seconds, dry_run=dry_run,
            renew_identity=renew_identity,
        )  # fmt: skip
    failed = [skip.error for skip in done.outboxes if skip.error]
    failed += [f"the numbers of {each.sequence} were left: {each.problem}" for each in done.sequences if each.problem]
    if as_json:
        print_json({key: value for key, value in asdict(done).items() if key != "running_schedulers"})
    else:
        _show(done)
    if done.running_schedulers:
        running = counted(done.running_schedulers, "scheduler is", "schedulers are")
        tell(f"{running} running; after a restore, start one only when this is done")
    for error in failed:
        tell(error)
    if failed:
        ctx.exit(FAILED)


def _show(done: Restored) -> None:
    begin = "would begin at" if done.dry_run else "begin at"
    for skip in done.outboxes:
        if not skip.error:
            stored = f"; highest stored: {skip.highest_id}" if skip.highest_id > skip.last_id else ""
            say(f"outbox {skip.outbox}: new ids {begin} {skip.first_id} (last given: {skip.last_id}{stored})")
    for each in done.sequences:
        if not each.problem:
            would = "would go on" if done.dry_run else "goes on"
            say(f"sequence {each.sequence}: {would} above {each.stored}, which is stored (it was at {each.last_value})")
    if done.new_identity:
        say(f"identity: {done.new_identity}, so that it shares no queue with its original")
    for pipeline in done.pipelines:
        say(f"pipeline {pipeline.pipeline} ({pipeline.type}): {pipeline.then}")
