"""`relay import ...`: what other systems know of outboxes, inboxes, consumers and pipelines, made here."""

import click

from relay.cli.base import Verbs, database, load_settings, postgres_option, tell
from relay.operations.pg_tide.importer import import_pg_tide

_HELP = """Takes over from other systems.

\b
Example:
  relay import pg-tide --dry-run
"""

imports = Verbs("import", _HELP)


@imports.command("pg-tide")
@click.option("--schema", metavar="S", help="Where pg_tide is.  [default: found by its tables]")
@click.option("--messages", is_flag=True, help="Copy what is still to be delivered, and what is in inboxes.")
@click.option("--enable", is_flag=True, help="Enable the pipelines that are enabled there.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@postgres_option
def pg_tide(schema: str | None, messages: bool, enable: bool, dry_run: bool, postgres_url: str | None) -> None:
    """Makes the outboxes, inboxes, consumer groups and pipelines of pg_tide here, in one transaction.

    Its schema was renamed before, because both are called tide: alter schema tide rename to old_tide. Stop its relay
    and its publishers first. Nothing of it is changed. What is here already is left as it is. Messages keep their ids,
    groups and pipelines their offsets; pipelines are disabled without --enable. Run it as the owner of schema tide.

    \b
    Exit codes: 0 done, also if something has to be done by hand; 1 cannot, nothing was changed; 2 wrong usage.

    \b
    Example:
      relay import pg-tide --messages --dry-run
      relay import pg-tide --messages
    """
    outcome = "nothing was changed: --dry-run" if dry_run else "pg_tide is as it was; drop it when all is well"
    with database(load_settings(postgres_url=postgres_url), "import") as connection:
        imported = import_pg_tide(connection, schema=schema, messages=messages, enable=enable, dry_run=dry_run)
    for line in imported.done:
        click.echo(line)
    for line in imported.by_hand:
        click.echo(f"by hand: {line}")
    tell(outcome)
