"""A message of an inbox, and who handles it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import psycopg

Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class InboxMessage:
    """A message, as a handler receives it."""

    event_id: str
    inbox_seq: int
    """The order of arrival."""
    event_type: str | None
    source: str | None
    aggregate_id: str | None
    event_sequence: int | None
    payload: Any
    """The JSON value."""
    headers: dict[str, Any]
    trace_id: str | None
    received_at: datetime
    retry_count: int
    """How often it has failed."""
    claimed_until: datetime
    payload_text: str = field(default="", repr=False)
    """The payload as PostgreSQL has it: in `payload`, a number with a fraction is a float, which has 17 digits."""
    headers_text: str = field(default="", repr=False)


Handler = Callable[[Connection, InboxMessage], object]
AsyncHandler = Callable[[AsyncConnection, InboxMessage], Awaitable[object]]


class Stop(Protocol):
    """A `threading.Event`, an `asyncio.Event`, or a `relay.process.stop.Stop`."""

    def is_set(self) -> bool: ...
