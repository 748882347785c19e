"""What is known of a pipeline, and what its status says of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from relay.backends.registry import SOURCES, source_class
from relay.broker.queues import DRAIN_QUEUES
from relay.operations.base import seconds_text
from relay.operations.fleet import Process, Waiting, waiting
from relay.operations.job_queues import Numbers
from relay.operations.lag import Lag

Row = dict[str, Any]

COUNT_LIMIT = 10_001
"""Messages are counted one by one below this; from here on the lag is counted in ids, as metrics do.
Dead letters are counted up to this."""
SILENT_SECONDS = 15.0
"""A scheduler that is silent for so long is ended by the others."""
# From enqueue to begin a drain takes milliseconds. A message that is older, and no drain: the queue is not served.
UNSERVED_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Status:
    """One pipeline, without secrets."""

    name: str
    direction: str
    state: str
    """disabled, invalid, unowned, draining, running, broken, retrying, held, waiting, idle"""
    why: str
    """Why it is not moving, or what it is doing. When it is retried is in `retry_seconds`."""
    outbox: str | None
    consumer_group: str | None
    sink_type: str | None
    source_type: str | None
    inbox: str | None
    inbox_dead: int | None
    """Dead messages of its inbox, beyond 10,000 an estimate. None: it has no inbox, or that cannot be looked at."""
    owner: str | None
    """host:pid of its scheduler."""
    lanes: int
    """How many drains it has at a time."""
    lane: int
    """Of several lanes the slowest: what is said of offset, lag, and the last drain is said of this one."""
    offset_id: int | None
    lag_messages: int
    lag_seconds: float
    """Age of the oldest message that it has not settled; 0 if there is none."""
    hold_seconds: float | None
    """A stopped pipeline: when retention may remove what it has not delivered. None while that is far off."""
    delivered: int
    dead_letters: int
    """Those that are dead now; counted up to COUNT_LIMIT."""
    dead_letters_ever: int
    """How often a message was refused; some of them may have been delivered or discarded since."""
    failures: int
    """Of its last drains, in a row."""
    retry_at: datetime | None
    """When it is retried, if its last drain failed."""
    retry_seconds: float | None
    """In how many seconds that is; 0 if it is due."""
    last_error: str | None
    last_error_code: str | None
    last_error_at: datetime | None
    last_drain_at: datetime | None
    jobs: Numbers | None
    """Of a queue of jobs, what it holds: then the lag is that of the jobs that are due."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """What is known of an outbox, whichever pipeline asks."""

    last_id: int
    horizon: int
    publishers: Sequence[Row]
    """Open transactions, the oldest first."""
    others: Sequence[Row]
    """Sessions that hold locks like a publisher's, and hold nothing back."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One pipeline, and what concerns it."""

    row: Row
    """Of `status_pipelines`."""
    schedulers: Sequence[Row]
    outbox: Outbox | None
    lag: Lag | None
    hold_seconds: float | None
    stranger: Row | None
    """Who holds the lock of the pipeline, and is no scheduler."""
    jobs: Numbers | None
    inbox_dead: int | None = None
    workers: Sequence[Process] = ()
    """That are alive, whatever they serve."""

    @property
    def queue(self) -> str:
        """Of its drains."""
        return DRAIN_QUEUES[self.row["direction"]]

    @property
    def is_served(self) -> bool:
        """Whether workers are connected to its queue, on whichever broker."""
        return any(self.queue in worker.queues and self.queue not in worker.lacking for worker in self.workers)

    @property
    def waiting(self) -> Waiting:
        """The drains in its queue that no worker has taken, as schedulers say."""
        alive = [scheduler for scheduler in self.schedulers if is_alive(scheduler)]
        return waiting(alive).get(self.queue, Waiting())

    @property
    def owner(self) -> Row | None:
        return next((s for s in self.schedulers if s["scheduler_id"] == self.row["owner"] and is_alive(s)), None)

    @property
    def is_readable(self) -> bool:
        """Whether a drain would find a message."""
        return self.lag is not None and self.outbox is not None and self.lag.first_id <= self.outbox.horizon

    @property
    def lag_seconds(self) -> float:
        if self.jobs is not None:
            return self.jobs.oldest_due_seconds
        return self.lag.seconds if self.lag else 0.0

    @property
    def lag_messages(self) -> int:
        if self.jobs is not None:
            return self.jobs.due
        if self.lag is None or self.outbox is None:
            return 0
        in_ids = self.outbox.last_id - int(self.row["offset_id"])
        return self.lag.messages if self.lag.messages < COUNT_LIMIT else max(self.lag.messages, in_ids)


def is_alive(scheduler: Row) -> bool:
    """`scheduler` is a row of `status_schedulers`."""
    return bool(scheduler["connected"]) and scheduler["silent_seconds"] < SILENT_SECONDS


def is_drained(pipeline: Row) -> bool:
    """Whether workers drain it, a row of `status_pipelines`: it is enabled, valid, and no other process receives it."""
    source_type = pipeline["source_type"]
    is_passive = source_type in SOURCES and source_class(source_type).features.passive
    return bool(pipeline["enabled"]) and not pipeline["invalid_reason"] and not is_passive


def publisher_text(publisher: Row) -> str:
    """An open transaction that publishes, a row of `status_publishers`: who it is, and since when."""
    if publisher["gid"] is not None:
        who = f"prepared transaction {publisher['gid']!r}"
    else:
        name = publisher["application_name"] or "none"
        who = f"transaction of pid {publisher['pid']}, user {publisher['role'] or 'unknown'}, application_name {name}"
    if publisher["open_seconds"] is None:
        return f"an open {who} (only members of pg_read_all_stats can see since when)"
    return f"a {who}, open for {seconds_text(publisher['open_seconds'])},"
