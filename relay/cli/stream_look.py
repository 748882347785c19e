"""`relay stream list, show, explain, history`: how stream tables are, and what their refreshes did."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

import click

from relay.cli.base import (
    Verb,
    database,
    json_option,
    load_settings,
    output,
    postgres_option,
    print_json,
    print_list,
    say,
    shown,
)
from relay.cli.tables import Column, Table
from relay.cli.values import time_text
from relay.operations import stream_details as operations
from relay.operations.base import counted, seconds_text
from relay.operations.stream_details import Explanation, Node, Refresh, StreamDetails
from relay.operations.stream_tables import StreamTable
from relay.operations.stream_tables import list_stream_tables as found_stream_tables

_name = click.argument("name")
_STATES = {"ACTIVE": "green", "INITIALIZING": "yellow", "ERROR": "red", "SUSPENDED": "red"}


@click.command("list", cls=Verb, short_help="Lists the stream tables, and why one is behind its query.")
@postgres_option
@json_option
def list_stream_tables(postgres_url: str | None, as_json: bool) -> None:
    """Lists the stream tables, and why one is behind its query, or computed as a whole.

    \b
    Exit codes: 0 listed, also if there are none; 1 an error; 2 wrong usage.

    \b
    Example:
      relay stream list --json
    """
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        found = found_stream_tables(connection)
    print_list(
        found, _table, as_json=as_json, none="there are no stream tables; create one: relay stream create NAME QUERY"
    )


def _table(found: Sequence[StreamTable]) -> Table:
    table = Table(
        Column("stream table"),
        Column("status", whole=True),
        Column("schedule"),
        Column("mode"),
        Column("tier"),
        Column("stale", number=True),
        Column("outbox", minor=True),
        Column("refreshed with", minor=True),
        Column("error, behind, or why full", long=True),
    )
    for one in found:
        stale = "" if one.staleness_seconds is None else seconds_text(one.staleness_seconds)
        status = shown(one.status, _STATES.get(one.status, ""))
        mode = (
            one.refresh_mode if one.refresh_mode == one.effective_mode else f"{one.refresh_mode}: {one.effective_mode}"
        )
        together = ", ".join(one.refreshed_with)
        table.add_row(one.name, status, one.schedule, mode, one.tier, stale, one.outbox or "", together, _why(one))
    return table


def _why(one: StreamTable) -> str:
    """What went wrong, or why it is behind, or why its refreshes compute the whole query."""
    return one.last_error or one.behind or (f"FULL: {one.why_full}" if one.why_full else "")


@click.command(cls=Verb, short_help="Shows one stream table in full.")
@_name
@postgres_option
@json_option
def show(name: str, postgres_url: str | None, as_json: bool) -> None:
    """Shows a stream table in full: also its query, of each source the changes that wait, and its hidden tables.

    \b
    Exit codes: 0 shown; 1 no such stream table, or an error; 2 wrong usage.

    \b
    Example:
      relay stream show region_totals --json | jq .nodes
    """
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        found = operations.show(connection, name)
    if as_json:
        print_json(asdict(found))
        return
    output().print(_facts(found))


def _facts(found: StreamDetails) -> Table:
    table = Table(Column("what", whole=True), Column("value", long=True))
    facts = asdict(found)
    del facts["sources"], facts["nodes"]
    for what, value in facts.items():
        if value is not None:
            table.add_row(what.replace("_", " "), time_text(value) if isinstance(value, datetime) else str(value))
    for source in found.sources:
        waiting = (
            "computed as a whole"
            if source.pending_rows is None
            else counted(source.pending_rows, "change waits", "changes wait")
        )
        table.add_row("source", f"{source.name}: {waiting}; its buffer has {source.buffer_bytes} bytes")
    for node in found.nodes:
        table.add_row("stored", _stored(node))
    return table


def _stored(node: Node) -> str:
    """A hidden table, or the stream table itself, in a line."""
    rows = "rows unknown" if node.rows_estimate is None else f"about {counted(node.rows_estimate, 'row', 'rows')}"
    state = "" if node.state_bytes is None else f" and {node.state_bytes} of state"
    how = "; ".join([", ".join(node.strategies), *([] if node.is_populated else ["to be computed"])])
    return f"{node.relation}: {rows}, {node.table_bytes} bytes{state}; {how}"


@click.command(cls=Verb, short_help="Says how a stream table is refreshed, and why.")
@_name
@postgres_option
@json_option
def explain(name: str, postgres_url: str | None, as_json: bool) -> None:
    """Says how a stream table is refreshed, and why.

    By which strategy when which tables changed, why by no better one, and which mode suits it.

    \b
    Exit codes: 0 explained; 1 no such stream table, or an error; 2 wrong usage.

    \b
    Example:
      relay stream explain region_totals
    """
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        found = operations.explain(connection, name)
    if as_json:
        print_json(asdict(found))
        return
    say(f"{found.configured_mode}, refreshed {found.effective_mode}{_because(found.why_full)}")
    if found.strategies:
        output().print(_strategies(found))
    verdict = "keep its mode" if found.recommended_mode == "KEEP" else f"change its mode to {found.recommended_mode}"
    say(f"{verdict} (confidence: {found.confidence}): {found.recommended_because}")


def _because(reason: str | None) -> str:
    return f": {reason}" if reason else ""


def _strategies(found: Explanation) -> Table:
    table = Table(
        Column("changed"), Column("strategy", whole=True), Column("refreshes", number=True), Column("why", long=True)
    )
    for one in found.strategies:
        table.add_row(", ".join(one.changed), one.strategy, str(found.used.get(one.strategy, 0)), one.reason or "")
    return table


@click.command(cls=Verb, short_help="Lists the last refreshes of a stream table.")
@_name
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, metavar="N", help="How many.")
@postgres_option
@json_option
def history(name: str, limit: int, postgres_url: str | None, as_json: bool) -> None:
    """Lists the last refreshes of a stream table, newest first. One that had nothing to do has no line.

    \b
    Exit codes: 0 listed, also if there are none; 1 no such stream table, or an error; 2 wrong usage.

    \b
    Example:
      relay stream history region_totals --limit 5
    """
    with database(load_settings(postgres_url=postgres_url), "stream") as connection:
        found = operations.history(connection, name, limit=limit)
    print_list(
        found, _refreshes, as_json=as_json, none="it has not been refreshed yet; to wait for it: relay stream wait NAME"
    )


def _refreshes(found: Sequence[Refresh]) -> Table:
    table = Table(
        Column("began", whole=True),
        Column("ms", number=True),
        Column("action", whole=True),
        Column("strategy", whole=True),
        Column("changed", number=True),
        Column("inserted", number=True),
        Column("updated", number=True),
        Column("deleted", number=True),
        Column("reason or error", long=True),
    )
    for one in found:
        table.add_row(
            time_text(one.start_time),
            f"{one.duration_ms:.1f}",
            shown(one.action, "red" if one.status == "FAILED" else ""),
            one.strategy or "",
            "" if one.source_rows is None else str(one.source_rows),
            *(str(rows) for rows in (one.rows_inserted, one.rows_updated, one.rows_deleted)),
            one.error_message or one.reason or "",
        )
    return table
