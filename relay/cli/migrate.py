"""`relay migrate`: the schema of the database."""

from contextlib import closing

import click

from relay import migrate as migrations
from relay.cli.base import FAILED, Verb, json_option, load_settings, postgres_option, print_json
from relay.db import connect
from relay.sql import Migration


@click.command(cls=Verb, short_help="Brings the schema to this version.")
@postgres_option
@click.option("--print", "print_sql", is_flag=True, help="Write the SQL, for a tool of your own; touches no database.")
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 if the database is behind or ahead.")
@json_option
@click.pass_context
def migrate(ctx: click.Context, postgres_url: str | None, print_sql: bool, check: bool, as_json: bool) -> None:
    """Brings the schema tide to this version: forward only, all or nothing, one at a time.

    The role needs CREATE on the database and nothing more. May be run again, and by several at once.

    \b
    Exit codes: 0 current; 1 cannot, or (--check) behind or ahead; 2 wrong usage.

    \b
    Example:
      relay migrate --postgres-url postgresql://owner@localhost/app
      relay migrate --print > tide.sql
    """
    if print_sql and check:
        raise click.UsageError("give --print or --check, not both")
    if print_sql:
        click.echo(migrations.script(), nl=False)
    elif check:
        ctx.exit(_check(postgres_url, as_json))
    else:
        applied = migrations.migrate(load_settings(postgres_url=postgres_url).postgres_url)
        if as_json:
            print_json({"applied": [_name(migration) for migration in applied]})
        else:
            click.echo("\n".join(f"applied {_name(m)}" for m in applied) or "the database is current")


def _check(postgres_url: str | None, as_json: bool) -> int:
    with closing(connect(load_settings(postgres_url=postgres_url), "tide-relay migrate")) as connection:
        state = migrations.check(connection)
    missing = [_name(migration) for migration in state.missing]
    unknown = [f"{version:04}" for version in state.unknown]
    if as_json:
        print_json({"current": state.current, "missing": missing, "unknown": unknown})
    elif state.current:
        click.echo("the database is current")
    if state.current:
        return 0
    if missing and not as_json:
        click.echo(f"the database is behind, it lacks {', '.join(missing)}: run relay migrate", err=True)
    if unknown and not as_json:
        click.echo(f"the database is ahead, it has migration {', '.join(unknown)}: upgrade tide-relay", err=True)
    return FAILED


def _name(migration: Migration) -> str:
    return f"{migration.version:04}_{migration.name}"
