"""`relay doctor`: is everything there that the relay needs, and if not, what to do."""

from collections.abc import Iterator
from dataclasses import asdict

import click
from rich.text import Text

from relay.broker.factory import make_broker, ping
from relay.cli.base import (
    FAILED,
    Verb,
    broker_option,
    json_option,
    load_settings,
    output,
    postgres_option,
    print_json,
    refusals,
)
from relay.database.connection import Connection, connect
from relay.errors import RelayError
from relay.masking import mask
from relay.operations.doctor import database as doctor_database
from relay.operations.doctor import pipelines as doctor_pipelines
from relay.operations.doctor.findings import Check, Finding, failed, ok
from relay.settings import Settings

MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "bold red")}


@click.command(cls=Verb, short_help="Checks everything, and says how to mend it.")
@postgres_option
@broker_option
@json_option
@click.pass_context
def doctor(ctx: click.Context, postgres_url: str | None, broker_url: str | None, as_json: bool) -> None:
    """Checks database, broker, schedulers, outboxes and pipelines; each check with its result and its fix.

    Run it with the settings of the schedulers and workers, where they run: it looks with their eyes (their role, their
    libraries, their secrets).

    \b
    Exit codes: 0 nothing failed (there may be warnings); 1 a check failed; 2 wrong usage.

    \b
    Example:
      relay doctor --json | jq '.[] | select(.result != "ok")'
    """
    findings = list(examine(load_settings(postgres_url=postgres_url, broker_url=broker_url)))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            _print(finding)
    ctx.exit(FAILED if any(finding.result == "failed" for finding in findings) else 0)


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings; what cannot be looked at because the database is not there is left out."""
    yield from _broker(settings)
    try:
        connection = connect(settings, "tide-relay doctor")
    except RelayError as error:
        yield failed("connection", str(error), "check the URL, that PostgreSQL runs there, and that it lets us in")
        return
    with connection:
        yield ok("connection", mask(settings.postgres_url))
        for check in (*doctor_database.CHECKS, *doctor_pipelines.CHECKS):
            yield from _run(check, connection, settings)


def _run(check: Check, connection: Connection, settings: Settings) -> Iterator[Finding]:
    """One that cannot be made is a finding too, and does not keep the others from being made."""
    try:
        with refusals():
            yield from check(connection, settings)
    except RelayError as error:
        yield failed(
            check.__name__.replace("_", " "), str(error), "mend what is said above, and run relay doctor again"
        )


def _broker(settings: Settings) -> Iterator[Finding]:
    try:
        broker = make_broker(settings.broker_url)
        try:
            ping(broker)
        finally:
            broker.close()
    except RelayError as error:
        yield failed("broker", str(error), "check --broker-url (RELAY_BROKER_URL), and that the broker runs there")
    else:
        yield ok("broker", mask(settings.broker_url))


def _print(finding: Finding) -> None:
    mark, colour = MARKS[finding.result]
    console = output()
    console.print(Text(f"{mark} {finding.check}: ", style=colour) + Text(finding.found, style="not bold default"))
    if finding.fix:
        console.print(Text(f"    fix: {finding.fix}"))
