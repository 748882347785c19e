"""`relay doctor`: whether the relay has everything that it needs, and how to fix what is missing."""

from collections.abc import Sequence
from dataclasses import asdict

import click

from relay.cli.base import (
    FAILED,
    Verb,
    broker_option,
    json_option,
    load_settings,
    output,
    postgres_option,
    print_json,
    shown,
)
from relay.operations.base import counted
from relay.operations.doctor.findings import Finding
from relay.operations.doctor.run import examine

MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "bold red"), "skipped": ("–", "dim")}


@click.command(cls=Verb, short_help="Checks everything, and says how to fix it.")
@postgres_option
@broker_option
@json_option
@click.pass_context
def doctor(ctx: click.Context, postgres_url: str | None, broker_url: str | None, as_json: bool) -> None:
    """Checks database, broker, processes, queues, outboxes and pipelines, and prints each result with its fix.

    Run it where the schedulers and workers run, with their settings: it checks with their role, their libraries and
    their secrets.

    One cause is one failed check: those that depend on it are skipped, and are made when it is fixed.

    \b
    Exit codes: 0 nothing failed (there may be warnings); 1 a check failed; 2 wrong usage.

    \b
    Example:
      relay doctor --json | jq '.[] | select(.result == "failed")'
    """
    findings = list(examine(load_settings(postgres_url=postgres_url, broker_url=broker_url)))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            if finding.result != "skipped":
                _print(finding)
        _print_skipped([finding for finding in findings if finding.result == "skipped"])
    ctx.exit(FAILED if any(finding.result == "failed" for finding in findings) else 0)


def _print(finding: Finding) -> None:
    mark, colour = MARKS[finding.result]
    console = output()
    console.print(shown(f"{mark} {finding.check}: ", style=colour) + shown(finding.found, style="not bold default"))
    if finding.fix:
        console.print(shown(f"    fix: {finding.fix}"))


def _print_skipped(findings: Sequence[Finding]) -> None:
    """One line for each cause."""
    mark, colour = MARKS["skipped"]
    for cause in dict.fromkeys(finding.cause for finding in findings):
        names = [finding.check for finding in findings if finding.cause == cause]
        checks = counted(len(names), "check depends", "checks depend")
        text = f"{checks} on {cause}, which failed: {', '.join(names)}"
        output().print(shown(f"{mark} skipped: ", style=colour) + shown(text, style="not bold default"))
