"""`relay migrate`: the schema of the database."""

import click

from relay.cli.base import FAILED, Verb, json_option, load_settings, postgres_option, print_json, say
from relay.operations import schema


@click.command(cls=Verb, short_help="Brings the schema to this version.")
@postgres_option
@click.option("--print", "print_sql", is_flag=True, help="Print the SQL, for your own tool; uses no database.")
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 if this version cannot work on the database.")
@click.option("--roles", "with_roles", is_flag=True, help="Also create the roles tide_admin ...; see above.")
@click.option(
    "--timeout",
    "timeout_seconds",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="How long to retry while other transactions block it.",
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

    The role needs CREATE on the database and nothing more. It is safe to run it repeatedly, concurrently, and while
    applications publish and a fleet runs: it waits half a second for a lock, releases everything, and retries.

    --roles creates the roles tide_admin, tide_operator, tide_reader, tide_publisher, tide_consumer and tide_relay if
    they are missing, which needs CREATEROLE, and grants each its rights again.

    \b
    Exit codes: 0 current, or ahead by what this version can work with; 1 an error, or (--check) behind or too far
    ahead; 2 wrong usage.

    \b
    Example:
      relay migrate --postgres-url postgresql://owner@localhost/app --roles
      relay migrate --print > tide.sql
    """
    if check and (print_sql or with_roles):
        raise click.UsageError("give --check alone: it changes nothing")
    if print_sql:
        click.echo(schema.script(with_roles=with_roles), nl=False)
    elif check:
        ctx.exit(_check(postgres_url, as_json))
    else:
        settings = load_settings(postgres_url=postgres_url)
        applied = schema.migrate(settings, timeout_seconds=timeout_seconds, with_roles=with_roles)
        if as_json:
            print_json({"applied": list(applied.names), "functions": applied.functions})
        else:
            lines = [f"applied {name}" for name in applied.names] + ["applied the functions"] * applied.functions
            for line in lines or ["the database is current"]:
                say(line)


def _check(postgres_url: str | None, as_json: bool) -> int:
    state = schema.check(load_settings(postgres_url=postgres_url))
    if as_json:
        names = ("current", "missing", "unknown", "incompatible", "functions")
        print_json({name: getattr(state, name) for name in names})
        return 0 if state.workable else FAILED
    if state.current:
        say("the database is current")
    elif state.workable:
        found = [f"migration {number}" for number in state.unknown] or ["the functions of a later version"]
        say(f"the database is ahead, this version can work with it: it has {', '.join(found)}")
    if state.lacks:
        say(f"the database is behind, it lacks {', '.join(state.lacks)}: run relay migrate", err=True)
    if state.incompatible:
        numbers = ", ".join(state.incompatible)
        say(f"the database is ahead, it has migration {numbers}: upgrade tide-relay", err=True)
    return 0 if state.workable else FAILED
