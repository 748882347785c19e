"""The checks of `relay doctor` that concern stream tables."""

from collections.abc import Iterator, Sequence

from relay.database.connection import Connection
from relay.masking import mask
from relay.operations.base import counted, rows
from relay.operations.doctor.findings import Check, Finding, failed, ok, some, warning
from relay.operations.stream_tables import StreamTable, list_stream_tables
from relay.settings import Settings


def streams(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """Stream tables that are not refreshed, or that writers do not maintain yet; and what makes refreshes dear."""
    found = list_stream_tables(connection)
    troubles = [*_not_refreshed(found), *_dear(connection)]
    yield from troubles
    if not troubles:
        yield ok("stream tables", f"{counted(len(found), 'stream table')}, no refresh failed" if found else "none yet")


def _not_refreshed(found: Sequence[StreamTable]) -> Iterator[Finding]:
    suspended = [one for one in found if one.status == "SUSPENDED" and one.last_error]
    failing = [one for one in found if one.status == "ERROR" and one.consecutive_errors]
    unread = [one for one in found if one.status == "ERROR" and not one.consecutive_errors]
    waiting = [
        one for one in found
        if one.refresh_mode == "IMMEDIATE" != one.effective_mode and one.is_populated and one.status == "INITIALIZING"
    ]  # fmt: skip
    if suspended:
        failures = suspended[0].consecutive_errors
        text = f"{_named(suspended)}: {failures} refreshes in a row failed, so none is tried: {_why(suspended)}"
        yield failed("stream tables", text, "remove the cause, then: relay stream resume NAME")
    if unread:
        yield failed("stream tables", f"{_named(unread)}: {_why(unread)}", "relay stream set NAME --schedule ...")
    if failing:
        yield warning(
            "stream tables", f"{_named(failing)}: the last refresh failed: {_why(failing)}", "remove the cause"
        )
    if waiting:
        yield warning(
            "stream tables",
            f"{_named(waiting)}: IMMEDIATE, but writers do not maintain them yet",
            "if that lasts: end the transactions that have written to their sources and are open still",
        )
    if paused := [one for one in found if one.status == "SUSPENDED" and not one.last_error]:
        yield warning("stream tables", f"{_named(paused)}: paused, so not refreshed", "relay stream resume NAME")


def _dear(connection: Connection) -> Iterator[Finding]:
    told = {row["check_name"]: row["detail"] for row in rows(connection, "doctor_streams")}
    if names := told.get("needs_reinit"):
        yield warning(
            "stream tables",
            f"{names}: a trigger that captures changes is missing or disabled, so each refresh computes everything",
            "alter table SOURCE enable trigger ...; the next refresh restores one that is missing",
        )
    if waiting := told.get("buffer_growth"):
        yield warning(
            "stream tables",
            f"changes that wait for a refresh: {waiting}",
            "shorten the schedule, or resume or drop what is not refreshed",
        )


def promises(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """Stream tables that were said to read what only grows. No finding where that is so."""
    if broken := [one for one in list_stream_tables(connection) if one.append_broken]:
        yield warning(
            "append only",
            f"{_named(broken)}: append_only was switched off: {broken[0].append_broken}",
            "leave it off, or if that was once: relay stream set NAME --append-only",
        )


def settings(connection: Connection, _settings: Settings) -> Iterator[Finding]:
    """Settings of pg_trickle: nothing reads them. No finding where there are none."""
    if names := [row["name"] for row in rows(connection, "doctor_other_settings")]:
        yield warning(
            "settings",
            f"{some(names)}: set on the database or on roles, and without effect",
            "set what stands for them, as docs/migrating-from/pgtrickle-relay.md says (select tide.setting_set(...)), "
            "then: alter database ... reset NAME, or alter role ... reset NAME",
        )


def _named(found: Sequence[StreamTable]) -> str:
    return some([one.name for one in found])


def _why(found: Sequence[StreamTable]) -> str:
    return mask(found[0].last_error or "")


CHECKS: tuple[Check, ...] = (streams, promises, settings)
