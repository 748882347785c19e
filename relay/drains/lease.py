"""Leases: who may drain a pipeline, and until when.

A pipeline's row in `tide.drain` holds its epoch, the number of its last drain and that drain's lease. The invariant:

    Every write of a drain names epoch and number, and an epoch is raised only while no lease runs.

So a worker that finds its row changed is fenced and stops (`relay/drains/fence.py`), and two drains of one pipeline
never publish at once: a publish starts only if its time limit ends within the lease (`Lease.covers`), and no other
drain starts before that.
"""

import random
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from psycopg.rows import dict_row

from relay.database.connection import Connection, database_errors
from relay.drains.messages import MessageRead, Place, ask_messages
from relay.models import Drain
from relay.sql import query

FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 30.0
LONGEST_ASKED_SECONDS = 3600.0

Outcome = Literal["idle", "more", "again", "later", "failed"]
"""How a drain ends: nothing left; its slice is over; only messages of open publishers left; nothing is due yet, or no
thread is free to wait; it failed. After all but the first two, the scheduler pauses before the next drain."""


@dataclass(frozen=True, slots=True)
class DrainStart:
    """A drain that has the lease, and what it needs to know about its pipeline."""

    direction: str
    config: dict[str, Any]
    revision: int
    failures: int
    """Drains that failed in a row before this one."""
    group_id: int | None = None
    offset_id: int = 0
    outbox_id: int | None = None
    outbox: str = ""
    inbox: str = ""
    """Of a reverse pipeline, which has no group and no outbox."""
    lane: int = 0
    lanes: int = 1
    """The drain is for the messages of one of so many lanes."""
    past: list[dict[str, Any]] = field(default_factory=list)
    """How the group was read before: `{"lanes": 2, "offsets": [70, 90]}`, and what was settled of each lane."""
    positions: dict[str, str] = field(default_factory=dict)
    """What is in `tide.position`."""
    redeliver: bool = False
    """Whether dead letters are to be retried, or a range to be replayed."""
    read: MessageRead | None = None
    """What was read in the same round trip, where it was guessed that the drain begins."""

    @property
    def passed_over(self) -> list[dict[str, Any]]:
        """What of `past` counts still: layouts in which something was settled above our offset."""
        return [layout for layout in self.past if max(layout["offsets"]) > self.offset_id]

    @property
    def reads_all(self) -> bool:
        """Whether every message above the offset is ours."""
        return self.lanes == 1 and not self.passed_over


@dataclass(frozen=True, slots=True)
class DrainResult:
    """What became of a drain."""

    outcome: Outcome
    progressed: bool = False
    """Whether it settled any message."""
    retry_seconds: float | None = None
    failures: int = 0
    error_code: str | None = None
    error: str | None = None
    needs_operator: bool = False
    """Whether what is wrong stays until someone changes something. It is retried all the same."""


class Lease:
    """A drain's lease, as seen from the worker: counted from before each renewal was sent, so never too long."""

    def __init__(self, drain: Drain, seconds: float, granted_at: float) -> None:
        self.drain = drain
        self.seconds = seconds
        """How long it is after each renewal. The pipeline may have been changed since the scheduler gave the first: no
        time limit of the configuration that the drain works by may be longer, or nothing could be done within it."""
        self._until = granted_at + seconds

    def renewed(self, sent_at: float) -> None:
        self._until = max(self._until, sent_at + self.seconds)

    def covers(self, seconds: float) -> bool:
        """Whether something that takes so long ends within the lease if it starts now."""
        return time.monotonic() + seconds <= self._until


def begin(connection: Connection, drain: Drain, guess: Place | None = None) -> DrainStart | None:
    """Takes the lease. None if the drain message is stale or a duplicate, or its pipeline is disabled or gone: drop it.

    `guess` is where the drain will begin to read, if the drain before was the last: that saves a round trip.
    Raises NotConnected, ConfigError, MigrationError.
    """
    parameters = {
        "pipeline": drain.pipeline,
        "epoch": drain.epoch,
        "number": drain.number,
        "lease_seconds": drain.lease_ms / 1000,
    }
    with database_errors(), connection.cursor(row_factory=dict_row) as cursor:
        # Not `transaction()`, which would take three round trips.
        with connection.pipeline():
            connection.execute(query("begin"))
            cursor.execute(query("drain_begin"), parameters)
            read = ask_messages(connection, guess) if guess else None
            connection.execute("commit")
        row = cursor.fetchone()
        if row is None:
            return None
        del row["durability"]
        # What a direction does not have is null, and has a default.
        return DrainStart(**{name: value for name, value in row.items() if value is not None}, read=read)


def failed(
    failures_before: int,
    code: str,
    reason: str,
    *,
    progressed: bool = False,
    asked_seconds: float | None = None,
    needs_operator: bool = False,
) -> DrainResult:
    """The result of a drain that must be retried: after 100 ms, then doubled up to 30 s, with full jitter.

    `asked_seconds` is the pause that the receiver asked for: no retry comes earlier, except that one hour is the limit.
    The jitter comes on top, so that pipelines that were sent away together do not come back together.
    """
    failures_before = 0 if progressed else failures_before
    ceiling = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(failures_before, 16))
    seconds = random.uniform(0, ceiling)  # spreads load, guards nothing
    if asked_seconds is not None:
        seconds = min(LONGEST_ASKED_SECONDS, max(0.0, asked_seconds) + seconds)
    return DrainResult("failed", progressed, seconds, failures_before + 1, code, reason, needs_operator)
