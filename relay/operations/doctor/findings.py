"""The results of the checks of `relay doctor`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from relay.database.connection import Connection
from relay.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str
    result: Literal["ok", "warning", "failed", "skipped"]
    found: str
    fix: str | None = None
    cause: str | None = None
    """Of a check that was skipped: the one that failed."""


Check = Callable[[Connection, Settings], Iterator[Finding]]


NAMES_SHOWN = 5


def some(names: Sequence[str]) -> str:
    """Names for people; of many only the first."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{', '.join(names[:NAMES_SHOWN])}{more}"


def ok(check: str, found: str) -> Finding:
    return Finding(check, "ok", found)


def warning(check: str, found: str, fix: str) -> Finding:
    """Works, or works for now."""
    return Finding(check, "warning", found, fix)


def failed(check: str, found: str, fix: str) -> Finding:
    """Does not work."""
    return Finding(check, "failed", found, fix)


def skipped(check: str, cause: str) -> Finding:
    """Was not made: another check failed on which it depends, and what that found is the one thing to fix."""
    return Finding(check, "skipped", f"depends on {cause}, which failed", cause=cause)
