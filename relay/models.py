"""The values on the data paths. All are immutable.

`Message` and `Record` are named tuples because a batch has thousands of them, and a frozen dataclass takes three times
as long to build.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from relay.masking import mask

MAX_BATCH_BYTES = 2 * 1024 * 1024
"""How much of an outbox is read at once. Two batches are in memory for each thread: one at the sink, one read ahead."""


class Message(NamedTuple):
    """One row of an outbox."""

    id: int
    """Above zero, increasing in publish order within a transaction; gaps are normal."""
    key: str | None
    payload: bytes
    """JSON text in UTF-8, as PostgreSQL prints it. Nothing parses it unless a format needs to."""
    headers: bytes
    """A JSON object in UTF-8; `b"{}"` when there are none."""
    created_at: str
    """When the message was published, as RFC 3339 in UTC with microseconds: `2025-03-01T12:00:00.000000Z`."""


class Record(NamedTuple):
    """One message as a sink sends it: everything is decided, a sink only moves it."""

    id: int
    dedup_id: str
    """`<outbox>:<id>`: the same in every retry, never used for another message."""
    subject: str
    """Where it goes inside the sink (subject, topic, routing key, URL); empty where the sink has one destination."""
    key: str | None
    body: bytes
    headers: dict[str, str]
    created_at: str = "1970-01-01T00:00:00.000000Z"
    """Of the message."""


class Received(NamedTuple):
    """One message as a source hands it out; nothing in it is interpreted yet."""

    id: str
    """The source's own id of it, the same at each delivery, such as `orders/3/1042`: the default event id."""
    body: bytes
    headers: dict[str, str]
    key: str | None = None
    subject: str = ""
    """Topic, subject, stream, routing key, queue or path that it came by."""
    partition: str = ""
    """What its position belongs to, such as `orders/3`; empty where the source has no positions."""
    position: str = ""
    """In the source's own notation; `open` gets the last one that was committed."""
    token: Any = None
    """What `ack` needs."""
    failure: "Failure | None" = None
    """Why the source could not convert it: it becomes a dead letter, with what the other fields have."""


class InboxRow(NamedTuple):
    """One message as a row of an inbox; the fields are those of the table."""

    event_id: str
    event_type: str | None
    source: str | None
    aggregate_id: str | None
    event_sequence: int | None
    payload: str
    """JSON text. PostgreSQL judges it."""
    headers: str
    """A JSON object as text."""
    trace_id: str | None


@dataclass(frozen=True, slots=True)
class Failure:
    """One record of a batch that was not delivered."""

    index: int
    """Its position in the list that `publish` was given."""
    permanent: bool
    """True: this record will never be accepted and becomes a dead letter. False: it is retried later."""
    code: str
    """A short stable word for metrics, such as `too_large`."""
    reason: str
    """For people; bounded, and without secrets, whatever foreign text it was built from."""
    retry_after_seconds: float | None = None
    """The pause that the receiver asked for; None if it asked for none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", mask(self.reason))


class Progress(NamedTuple):
    """How far a group has come, as a sink knows it."""

    offset_id: int
    """Every message up to here was delivered or permanently refused."""
    dead: tuple[tuple[int, Failure], ...] = ()
    """(message id, why) of those that were permanently refused and may not be settled yet."""


@dataclass(frozen=True, slots=True)
class Drain:
    """The right to drain one pipeline once: what a drain message carries, and what every write of the drain names."""

    pipeline: str
    epoch: int
    number: int
    """Grows by one with every drain of an epoch."""
    lease_ms: int
    """How long the drain may stay silent. A drain message that waits longer in the queue is stale."""
