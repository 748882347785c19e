"""The results of the checks of `relay doctor`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from relay.database.connection import Connection
from relay.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str
    result: Literal["ok", "warning", "failed"]
    found: str
    fix: str | None = None


Check = Callable[[Connection, Settings], Iterator[Finding]]


def ok(check: str, found: str) -> Finding:
    return Finding(check, "ok", found)


def warning(check: str, found: str, fix: str) -> Finding:
    """Works, or works for now."""
    return Finding(check, "warning", found, fix)


def failed(check: str, found: str, fix: str) -> Finding:
    """Does not work."""
    return Finding(check, "failed", found, fix)
