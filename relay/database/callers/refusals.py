"""From what any driver raises to our errors.

A library that wraps the error of its driver has it as the cause, so the cause furthest down has what PostgreSQL said.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass

from relay.errors import BadValue, Conflict, Disabled, MigrationError, NotAllowed, NotFound, Refused, TooLarge

_REFUSALS: dict[str, type[Refused]] = {
    "42704": NotFound,
    "P0002": NotFound,
    "55000": Disabled,
    "54000": TooLarge,
    "54001": BadValue,
    "42501": NotAllowed,
    "23505": Conflict,
}
_NO_SCHEMA = ("3F000", "42883", "42P01", "42703")
_DATA_EXCEPTION = "22"


@dataclass(frozen=True, slots=True)
class _Said:
    """An error, as PostgreSQL reports it."""

    sqlstate: str
    sentence: str
    more: tuple[str, ...]
    """Detail and hint, where it has them."""
    is_raised: bool
    """By a RAISE in a function, and so by one of ours."""

    @property
    def text(self) -> str:
        return ". ".join(part.rstrip(".") for part in (self.sentence, *self.more))


class _Refusals:
    """Not a generator: where nothing is refused, that would be a good part of what a call costs here."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception) and (said := _said(error)) and (ours := _translated(said)):
            raise ours from error


_refusals = _Refusals()


def refusals() -> AbstractContextManager[None]:
    """Raises Refused or MigrationError for what PostgreSQL says of the call. Other errors stay as they are."""
    return _refusals


def _translated(said: _Said) -> Exception | None:
    if said.sqlstate in _NO_SCHEMA:
        return MigrationError(f"PostgreSQL: {said.text}; apply the migrations: relay migrate")
    kind = _REFUSALS.get(said.sqlstate)
    if said.sqlstate.startswith(_DATA_EXCEPTION):
        kind = BadValue
    elif kind is None and said.is_raised:
        kind = Refused
    return kind(said.text, sqlstate=said.sqlstate) if kind else None


def _said(error: BaseException | None) -> _Said | None:
    found = None
    while error is not None:
        found = _of_driver(error) or found
        error = error.__cause__
    return found


def _of_driver(error: BaseException) -> _Said | None:
    """Of an error of psycopg, psycopg2 (with `diag`) or asyncpg; None for others."""
    sqlstate = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if diagnosis := getattr(error, "diag", None):
        names = "message_primary", "message_detail", "message_hint", "source_function"
    else:
        diagnosis, names = error, ("message", "detail", "hint", "server_source_function")
    sentence, detail, hint, source = (getattr(diagnosis, name, None) for name in names)
    if not sqlstate or not sentence:
        return None
    return _Said(sqlstate, sentence, tuple(each for each in (detail, hint) if each), source == "exec_stmt_raise")
