"""The keys of PostgreSQL: an inbox as a sink, another database's outbox as a source."""

from typing import Annotated

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, AliasChoices, Field

from relay.backends.common.keys import has_reference
from relay.backends.postgresql.parameters import check_parameters
from relay.backends.sink import SinkConfig
from relay.backends.source import SourceConfig
from relay.hosts import ascii_conninfo

# The name of an inbox or an outbox, or a reference that is not resolved yet.
_INBOX = r"^([A-Za-z0-9_][A-Za-z0-9_-]{0,49}|.*\$\{.*)$"
_OUTBOX = r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,99}|.*\$\{.*)$"


def _check_url(url: str) -> str:
    """Raises ValueError for an invalid connection URL. The text is not quoted: it may hold a password."""
    if has_reference(url):
        return url
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("postgres_url must be a URL that begins with postgresql://")
    try:
        given = conninfo_to_dict(url)
        port = str(given.get("port") or "")
    except psycopg.ProgrammingError:
        given, port = {}, "none"
    # A password with a '/' in it makes its beginning the port.
    if not all(part.isdigit() for part in port.split(",") if part):
        raise ValueError(
            "postgres_url cannot be understood: write postgresql://user:password@host:5432/database, with special "
            "characters in the password percent-encoded"
        )
    check_parameters(set(given))
    try:
        return ascii_conninfo(url)
    except ValueError as error:
        raise ValueError(f"postgres_url {error}") from None


PostgresUrl = Annotated[str, AfterValidator(_check_url)]


class InboxSinkConfig(SinkConfig):
    inbox: Annotated[str, Field(pattern=_INBOX, validation_alias=AliasChoices("inbox", "inbox_table"))]
    postgres_url: Annotated[PostgresUrl | None, Field(repr=False)] = None
    """Of the database of the inbox; None: the pipeline's own."""
    create_inbox: bool = False
    """Make it if it does not exist."""


class OutboxSourceConfig(SourceConfig):
    postgres_url: Annotated[PostgresUrl, Field(repr=False)]
    """Of the database of the outbox."""
    outbox: Annotated[str, Field(pattern=_OUTBOX, validation_alias=AliasChoices("outbox", "stream_table"))]
    consumer_group: Annotated[str | None, Field(pattern=_OUTBOX)] = None
    """The pipeline's name where it is null."""
    idle_poll_ms: Annotated[int, Field(ge=1, le=60_000)] = 50
    """How often to look where no scheduler runs in that database: publishers then do not ring."""
