"""`relay import ...`: imports from other systems: outboxes, inboxes, groups and pipelines; jobs."""

import click

from relay.cli.base import Verbs, database, load_settings, postgres_option, say, tell
from relay.operations.pg_tide.importer import Imported as PgTideImported
from relay.operations.pg_tide.importer import import_pg_tide
from relay.operations.pgrelay import Imported, import_pgrelay

_HELP = """Imports from other systems.

\b
Example:
  relay import pg-tide --dry-run
  relay import pgrelay --dry-run
"""

imports = Verbs("import", _HELP)


@imports.command("pg-tide")
@click.option("--schema", metavar="S", help="The schema of pg_tide.  [default: found by its tables]")
@click.option("--messages", is_flag=True, help="Copy messages that are not delivered yet, and the rows of inboxes.")
@click.option("--enable", is_flag=True, help="Enable the pipelines that are enabled there.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@postgres_option
def pg_tide(schema: str | None, messages: bool, enable: bool, dry_run: bool, postgres_url: str | None) -> None:
    """Imports the outboxes, inboxes, consumer groups and pipelines of pg_tide, in one transaction.

    First stop its relay and its publishers, and rename its schema, because both are called tide: alter schema tide
    rename to old_tide. Nothing in it is changed. What exists here already is not changed either. Messages keep their
    ids, groups and pipelines their offsets; pipelines are disabled without --enable. Run it as owner of schema tide.

    \b
    Exit codes: 0 done, also if something is left to do by hand; 1 an error, nothing was changed; 2 wrong usage.

    \b
    Example:
      relay import pg-tide --messages --dry-run
      relay import pg-tide --messages
    """
    outcome = "nothing was changed: --dry-run" if dry_run else "pg_tide was not changed; drop it when everything works"
    with database(load_settings(postgres_url=postgres_url), "import") as connection:
        imported = import_pg_tide(connection, schema=schema, messages=messages, enable=enable, dry_run=dry_run)
    _say(imported, outcome)


@imports.command("pgrelay")
@click.option("--schema", metavar="S", default="public", help="The schema of its tables.  [default: public]")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@postgres_option
def pgrelay(schema: str, dry_run: bool, postgres_url: str | None) -> None:
    """Takes over the jobs of PgRelay, in one transaction: its queues, what waits, and its dead letters.

    What waits is cancelled there, so that no worker of PgRelay runs it too. Jobs that are leased there are left: stop
    its workers, wait until the leases have run out, and import again. Run it as owner of schema tide.

    \b
    Exit codes: 0 done, also if something is left to do by hand; 1 an error, nothing was changed; 2 wrong usage.

    \b
    Example:
      relay import pgrelay --dry-run
    """
    with database(load_settings(postgres_url=postgres_url), "import") as connection:
        imported = import_pgrelay(connection, schema=schema, dry_run=dry_run)
    _say(imported, "nothing was changed: --dry-run" if dry_run else "the rest of PgRelay's tables was not changed")


def _say(imported: PgTideImported | Imported, outcome: str) -> None:
    for line in imported.done:
        say(line)
    for line in imported.by_hand:
        say(f"by hand: {line}")
    tell(outcome)
