"""`relay migrate`: the schema of the database."""

from contextlib import closing

import click

from relay.cli.base import FAILED, Verb, json_option, load_settings, postgres_option, print_json
from relay.database import migrate as migrations
from relay.database.connection import connect


@click.command(cls=Verb, short_help="Brings the schema to this version.")
@postgres_option
@click.option("--print", "print_sql", is_flag=True, help="Write the SQL, for a tool of your own; touches no database.")
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 if this version cannot work on the database.")
@click.option("--roles", "with_roles", is_flag=True, help="Make the roles tide_admin, tide_relay ... too; see below.")
@click.option(
    "--timeout",
    "timeout_seconds",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="How long to try again while transactions are in the way.",
)
@json_option
@click.pass_context
def migrate(
    ctx: click.Context,
    postgres_url: str | None,
    print_sql: bool,
    check: bool,
    with_roles: bool,
    timeout_seconds: float,
    as_json: bool,
) -> None:
    """Brings the schema tide to this version: forward only, all or nothing, one at a time.

    The role needs CREATE on the database and nothing more. May be run again, by several at once, and while applications
    publish and a fleet runs: it waits half a second for a lock, lets go of everything, and tries again.

    --roles makes the roles tide_admin, tide_operator, tide_reader, tide_publisher, tide_consumer and tide_relay where
    they are missing, which needs CREATEROLE, and grants each its rights again.

    \b
    Exit codes: 0 current, or ahead by what this version can work with; 1 cannot, or (--check) behind or too far ahead;
    2 wrong usage.

    \b
    Example:
      relay migrate --postgres-url postgresql://owner@localhost/app --roles
      relay migrate --print > tide.sql
    """
    if check and (print_sql or with_roles):
        raise click.UsageError("give --check alone: it changes nothing")
    if print_sql:
        click.echo(migrations.script(with_roles=with_roles), nl=False)
    elif check:
        ctx.exit(_check(postgres_url, as_json))
    else:
        url = load_settings(postgres_url=postgres_url).postgres_url
        applied = migrations.migrate(url, timeout_seconds=timeout_seconds, with_roles=with_roles)
        if as_json:
            print_json({"applied": list(applied.names), "functions": applied.functions})
        else:
            lines = [f"applied {name}" for name in applied.names] + ["applied the functions"] * applied.functions
            click.echo("\n".join(lines) or "the database is current")


def _check(postgres_url: str | None, as_json: bool) -> int:
    with closing(connect(load_settings(postgres_url=postgres_url), "tide-relay migrate")) as connection:
        state = migrations.check(connection)
    unknown = [f"{version:04}" for version in state.unknown]
    incompatible = [f"{version:04}" for version in state.incompatible]
    if as_json:
        missing, functions = [f"{m.version:04}_{m.name}" for m in state.missing], state.functions
        found = {"current": state.current, "missing": missing, "unknown": unknown, "incompatible": incompatible}
        print_json(found | {"functions": functions})
    elif state.current:
        click.echo("the database is current")
    elif state.workable:
        click.echo(f"the database is ahead, this version can work with it: it has {_ahead(state)}")
    if state.lacks and not as_json:
        click.echo(f"the database is behind, it lacks {', '.join(state.lacks)}: run relay migrate", err=True)
    if incompatible and not as_json:
        click.echo(f"the database is ahead, it has migration {', '.join(incompatible)}: upgrade tide-relay", err=True)
    return 0 if state.workable else FAILED


def _ahead(state: migrations.State) -> str:
    found = [f"migration {version:04}" for version in state.unknown]
    return ", ".join(found or ["the functions of a later version"])
