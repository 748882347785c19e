"""The status of each pipeline, and why it does not move.

Messages are read last, and only of outboxes that lag: the list of pipelines itself reads none.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from relay.backends.registry import SOURCES, source_class
from relay.backends.source import PassiveSource
from relay.database.connection import Connection, database_errors
from relay.errors import ConfigError
from relay.masking import mask
from relay.operations.base import rows, seconds_text
from relay.operations.lag import Behind, Lag, Lags, read_lags
from relay.operations.locks import ending, holder_text, strangers

Row = dict[str, Any]

COUNT_LIMIT = 10_001
"""Messages are counted one by one below this; from here on the lag is counted in ids, as metrics do."""
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
    """disabled, invalid, unowned, draining, retrying, held, waiting, idle"""
    why: str
    """Why it is not moving, or what it is doing."""
    outbox: str | None
    consumer_group: str | None
    sink_type: str | None
    source_type: str | None
    inbox: str | None
    owner: str | None
    """host:pid of its scheduler."""
    offset_id: int | None
    lag_messages: int
    lag_seconds: float
    """Age of the oldest message that it has not settled; 0 if there is none."""
    hold_seconds: float | None
    """A stopped pipeline: when retention may remove what it has not delivered. None while that is far off."""
    delivered: int
    dead_letters: int
    """Ever refused; some of them may have been delivered or discarded since."""
    failures: int
    """Of its last drains, in a row."""
    retry_at: datetime | None
    """When it is retried, if its last drain failed."""
    last_error: str | None
    last_error_code: str | None
    last_error_at: datetime | None
    last_drain_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Outbox:
    """What is known of an outbox, whichever pipeline asks."""

    last_id: int
    horizon: int
    publishers: Sequence[Row]
    """Open transactions, the oldest first."""
    others: Sequence[Row]
    """Sessions that hold locks like a publisher's, and hold nothing back."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """One pipeline, and what concerns it."""

    row: Row
    """Of `status_pipelines`."""
    schedulers: Sequence[Row]
    outbox: _Outbox | None
    lag: Lag | None
    hold_seconds: float | None
    stranger: Row | None
    """Who holds the lock of the pipeline, and is no scheduler."""

    @property
    def owner(self) -> Row | None:
        return next((s for s in self.schedulers if s["scheduler_id"] == self.row["owner"] and is_alive(s)), None)

    @property
    def is_readable(self) -> bool:
        """Whether a drain would find a message."""
        return self.lag is not None and self.outbox is not None and self.lag.first_id <= self.outbox.horizon

    @property
    def lag_messages(self) -> int:
        if self.lag is None or self.outbox is None:
            return 0
        in_ids = self.outbox.last_id - int(self.row["offset_id"])
        return self.lag.messages if self.lag.messages < COUNT_LIMIT else max(self.lag.messages, in_ids)


def read_status(connection: Connection, names: Sequence[str] = ()) -> list[Status]:
    """The pipelines of these names, or all, by name. `connection` is in autocommit.

    Raises ConfigError if one does not exist, NotConnected, MigrationError.
    """
    with database_errors():
        return [_judge(facts) for facts in _read(connection, names)]


def _read(connection: Connection, names: Sequence[str]) -> Iterator[_Facts]:
    schedulers = rows(connection, "status_schedulers")
    pipelines = rows(connection, "status_pipelines", names=list(names) or None)
    if missing := sorted(set(names) - {row["name"] for row in pipelines}):
        raise ConfigError(f"pipeline {', '.join(missing)} does not exist; list them: relay pipeline list")
    outboxes = _read_outboxes(connection, pipelines)
    lags = _read_lags(connection, pipelines, outboxes)
    holds = _read_holds(connection, pipelines)
    held_by = strangers(connection, [row["name"] for row in pipelines])
    for row in pipelines:
        outbox, lag = outboxes.get(row["outbox_id"]), lags.get((row["outbox_id"], row["offset_id"]))
        yield _Facts(row, schedulers, outbox, lag, holds.get(row["name"]), held_by.get(row["name"]))


def _read_outboxes(connection: Connection, pipelines: Sequence[Row]) -> dict[int, _Outbox]:
    """The order matters, see `tide.outbox_horizon`: last ids, then publishers, then messages.

    Where no publisher is open, the last id that was read before is the horizon.
    """
    names = {row["outbox_id"]: row["outbox"] for row in pipelines if row["outbox_id"] is not None}
    found = rows(connection, "status_last_ids", outbox_ids=list(names))
    last_ids: dict[int, int | None] = {row["outbox_id"]: row["last_id"] for row in found}
    publishers: dict[str, list[Row]] = defaultdict(list)
    others: dict[str, list[Row]] = defaultdict(list)
    for holder in rows(connection, "status_publishers"):
        (publishers if holder["publishes"] else others)[holder["outbox"]].append(holder)
    published_to = [outbox_id for outbox_id, name in names.items() if name in publishers]
    found = rows(connection, "status_horizons", outbox_ids=published_to) if published_to else []
    horizons: dict[int, int] = {row["outbox_id"]: row["horizon"] for row in found}
    return {
        outbox_id: _Outbox(
            last_id,
            horizons.get(outbox_id, last_id),
            publishers.get(names[outbox_id], ()),
            others.get(names[outbox_id], ()),
        )
        for outbox_id, last_id in last_ids.items()
        if last_id is not None  # else the outbox was dropped a moment ago
    }


def _read_lags(connection: Connection, pipelines: Sequence[Row], outboxes: Mapping[int, _Outbox]) -> Lags:
    read_by = ((row, outboxes[row["outbox_id"]]) for row in pipelines if row["outbox_id"] in outboxes)
    behind = (
        Behind(row["outbox_id"], row["offset_id"], outbox.last_id)
        for row, outbox in read_by
        if row["offset_id"] < outbox.last_id
    )
    return read_lags(connection, behind, COUNT_LIMIT)


def _read_holds(connection: Connection, pipelines: Sequence[Row]) -> dict[str, float]:
    """Seconds that retention still waits, by pipeline: those that are stopped, where the wait ends soon."""
    stopped = [row for row in pipelines if not row["enabled"] or row["invalid_reason"]]
    outbox_ids = list({row["outbox_id"] for row in stopped if row["outbox_id"] is not None})
    found = rows(connection, "status_holds", outbox_ids=outbox_ids) if outbox_ids else []
    names = {row["name"] for row in stopped}
    return {row["pipeline"]: max(0.0, row["seconds_left"]) for row in found if row["pipeline"] in names}


def is_alive(scheduler: Row) -> bool:
    """`scheduler` is a row of `status_schedulers`."""
    return bool(scheduler["connected"]) and scheduler["silent_seconds"] < SILENT_SECONDS


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


# Judging: no I/O from here on ----------------------------------------------------------------------------------------


def _judge(facts: _Facts) -> Status:
    row, owner = facts.row, facts.owner
    state, why = next(_reasons(facts))
    return Status(
        name=row["name"],
        direction=row["direction"],
        state=state,
        why=mask(why),
        outbox=row["outbox"],
        consumer_group=row["consumer_group"],
        sink_type=row["sink_type"],
        source_type=row["source_type"],
        inbox=row["inbox"],
        owner=f"{owner['host']}:{owner['pid']}" if owner else None,
        offset_id=row["offset_id"],
        lag_messages=facts.lag_messages,
        lag_seconds=round(facts.lag.seconds, 3) if facts.lag else 0.0,
        hold_seconds=facts.hold_seconds,
        delivered=row["delivered"] or 0,
        dead_letters=row["dead_letters"] or 0,
        failures=row["failures"] or 0,
        retry_at=row["retry_at"] if row["outcome"] == "failed" else None,
        last_error=row["error"] and mask(row["error"]),
        last_error_code=row["error_code"],
        last_error_at=row["error_at"],
        last_drain_at=row["ended_at"],
    )


def _reasons(facts: _Facts) -> Iterator[tuple[str, str]]:
    """The state and the reason, the strongest first; the last always holds."""
    yield from _stopped(facts)
    source_type = facts.row["source_type"]
    if source_type in SOURCES and issubclass(kind := source_class(source_type), PassiveSource):
        command = kind.brought_by.format(pipeline=facts.row["name"])
        yield "idle", f"no worker drains it: its messages are stored by `{command}`"
    if facts.owner is None and facts.stranger:
        holder = holder_text(facts.stranger)
        yield "unowned", (f"no scheduler can own it: {holder}, which is no scheduler, holds its lock; "
                          f"end it: {ending(facts.stranger)}")  # fmt: skip
    if facts.owner is None:
        yield "unowned", _unowned(facts.row["relay_group_id"], facts.schedulers)
    yield from _draining(facts.row)
    yield from _waiting(facts)


def _stopped(facts: _Facts) -> Iterator[tuple[str, str]]:
    row, seconds = facts.row, facts.hold_seconds
    ending = "" if seconds is None else f"; what it has not delivered may be let go in {seconds_text(seconds)}"
    if not row["enabled"]:
        yield "disabled", f"disabled: relay pipeline enable {row['name']}{ending}"
    if row["invalid_reason"]:
        yield "invalid", f"invalid: {row['invalid_reason']}{ending}"


def _unowned(group: str | None, schedulers: Sequence[Row]) -> str:
    alive = [s for s in schedulers if is_alive(s) and group in (None, s["relay_group_id"])]
    of_group = f" of group {group}" if group else ""
    if not alive:
        return f"no scheduler{of_group} is alive: start relay-scheduler"
    return f"no scheduler owns it yet; {len(alive)}{of_group} alive, one takes it within a second or two"


def _draining(row: Row) -> Iterator[tuple[str, str]]:
    if (row["lease_seconds"] or 0) > 0:
        yield "draining", f"a drain holds the lease until {_clock(row['lease_until'])}"
    if row["outcome"] == "failed" and (row["retry_seconds"] or 0) > 0:
        cause = f"{row['error_code']}: {row['error']}" if row["error"] else "its last drain failed"
        yield "retrying", f"waiting for retry until {_clock(row['retry_at'])} because {cause}"


def _waiting(facts: _Facts) -> Iterator[tuple[str, str]]:
    row, outbox = facts.row, facts.outbox
    if facts.lag and facts.is_readable:
        if facts.lag.seconds > UNSERVED_SECONDS:
            yield "waiting", ("a drain is due but none begins: are workers running (relay workers), "
                              "and do they use the broker of the scheduler?")  # fmt: skip
        yield "waiting", "a drain is about to begin"
    if outbox and outbox.publishers:
        more = f" (and {len(outbox.publishers) - 1} more)" if len(outbox.publishers) > 1 else ""
        yield "held", f"{publisher_text(outbox.publishers[0])} holds the horizon at {outbox.horizon}{more}"
    if row["direction"] == "reverse":
        yield "idle", "nothing to receive, or no worker is free: are workers running (relay workers)?"
    if not row["outbox_enabled"]:
        yield "idle", f"nothing to do: outbox {row['outbox']} is disabled and takes no messages"
    if outbox and outbox.others:
        other = outbox.others[0]
        yield "idle", (f"nothing to do; {holder_text(other)}, holds locks like those of a publisher of outbox "
                       f"{row['outbox']}, and is not publishing: it holds nothing back")  # fmt: skip
    yield "idle", "nothing to do"


def _clock(moment: datetime) -> str:
    return moment.strftime("%H:%M:%S.%f")[:-3] + " UTC"
