"""How a pipeline stands, and why it does not move: judged from rows, without I/O."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from relay.backends.sources import SOURCES, source_class
from relay.database.connection import Connection
from relay.masking import mask
from relay.operations.base import rows, seconds_text

Row = dict[str, Any]

COUNT_LIMIT = 10_001
"""Messages are counted one by one below this; from here on the lag is counted in ids, as metrics do."""
SILENT_SECONDS = 15.0
"""A scheduler silent for so long is ended by the others."""
# From enqueue to begin a drain takes milliseconds. A message that is older, and no drain: the queue is not served.
UNSERVED_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Status:
    """One pipeline."""

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
    delivered: int
    dead_letters: int
    failures: int
    last_error: str | None
    last_error_code: str | None
    last_error_at: datetime | None
    last_drain_at: datetime | None


def read(connection: Connection) -> list[Status]:
    """All pipelines. Raises RelayError."""
    schedulers = rows(connection, "status_schedulers")
    publishers = rows(connection, "status_publishers")
    found = rows(connection, "status_pipelines", count_limit=COUNT_LIMIT)
    return [judge(row, schedulers, [p for p in publishers if p["outbox"] == row["outbox"]]) for row in found]


def judge(row: Row, schedulers: Sequence[Row], publishers: Sequence[Row]) -> Status:
    """`schedulers` are all of `status_schedulers`, `publishers` those of its outbox."""
    owner = next((s for s in schedulers if s["scheduler_id"] == row["owner"] and is_alive(s)), None)
    state, why = next(_reasons(row, schedulers, owner, publishers))
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
        lag_messages=_lag(row),
        lag_seconds=round(row["waiting_seconds"], 3),
        delivered=row["delivered"] or 0,
        dead_letters=row["dead_letters"] or 0,
        failures=row["failures"] or 0,
        last_error=row["error"] and mask(row["error"]),
        last_error_code=row["error_code"],
        last_error_at=row["error_at"],
        last_drain_at=row["ended_at"],
    )


def is_alive(scheduler: Row) -> bool:
    return bool(scheduler["connected"]) and scheduler["silent_seconds"] < SILENT_SECONDS


def publisher_text(publisher: Row) -> str:
    """An open transaction that publishes: who it is, and since when."""
    if publisher["gid"] is not None:
        who = f"prepared transaction {publisher['gid']!r}"
    else:
        name = publisher["application_name"] or "none"
        who = f"transaction of pid {publisher['pid']}, user {publisher['role'] or 'unknown'}, application_name {name}"
    if publisher["open_seconds"] is None:
        return f"an open {who}, since when only a member of pg_read_all_stats may see,"
    return f"a {who}, open for {seconds_text(publisher['open_seconds'])},"


def _lag(row: Row) -> int:
    counted = row["waiting_messages"] or 0
    return counted if counted < COUNT_LIMIT else max(counted, row["last_id"] - row["offset_id"])


def _reasons(
    row: Row, schedulers: Sequence[Row], owner: Row | None, publishers: Sequence[Row]
) -> Iterator[tuple[str, str]]:
    """The state and the reason, the strongest first; the last always holds."""
    yield from _configured(row)
    if _is_passive(row["source_type"]):
        yield "idle", f"its messages are brought by a process of their own: see docs/sources/{row['source_type']}.md"
    yield from _owned(row, schedulers, owner)
    yield from _draining(row)
    yield from _waiting(row, publishers)


def _is_passive(source_type: str | None) -> bool:
    return source_type in SOURCES and source_class(source_type).features.passive


def _configured(row: Row) -> Iterator[tuple[str, str]]:
    if not row["enabled"]:
        yield "disabled", f"disabled: relay pipeline enable {row['name']}{_ending(row)}"
    if row["invalid_reason"]:
        yield "invalid", f"invalid: {row['invalid_reason']}{_ending(row)}"


def _ending(row: Row) -> str:
    """What retention will do if nobody acts; nothing while that is far off."""
    seconds = row["hold_seconds"]
    return "" if seconds is None else f"; what it has not delivered may be let go in {seconds_text(max(0.0, seconds))}"


def _owned(row: Row, schedulers: Sequence[Row], owner: Row | None) -> Iterator[tuple[str, str]]:
    if owner is not None:
        return
    group = row["relay_group_id"]
    alive = [s for s in schedulers if is_alive(s) and group in (None, s["relay_group_id"])]
    of_group = f" of group {group}" if group else ""
    if not alive:
        yield "unowned", f"no scheduler{of_group} is alive: start relay-scheduler"
    yield "unowned", f"owned by nobody; {len(alive)} scheduler(s){of_group} alive, one takes it within a second or two"


def _draining(row: Row) -> Iterator[tuple[str, str]]:
    held_seconds, retry_seconds = row["lease_seconds"] or 0, row["retry_seconds"] or 0
    if held_seconds > 0:
        yield "draining", f"a drain holds the lease until {_clock(row['lease_until'])}"
    if row["outcome"] == "failed" and retry_seconds > 0:
        cause = f"{row['error_code']}: {row['error']}" if row["error"] else "its last drain failed"
        yield "retrying", f"waiting for retry until {_clock(row['retry_at'])} because {cause}"


def _waiting(row: Row, publishers: Sequence[Row]) -> Iterator[tuple[str, str]]:
    if row["readable_messages"]:
        if row["waiting_seconds"] > UNSERVED_SECONDS:
            yield "waiting", ("a drain is due and none begins: are workers running (relay workers), "
                              "and on the broker of the scheduler?")  # fmt: skip
        yield "waiting", "a drain is about to begin"
    if publishers:
        more = f" (and {len(publishers) - 1} more)" if len(publishers) > 1 else ""
        yield "held", f"{publisher_text(publishers[0])} holds the horizon at {row['horizon']}{more}"
    if row["direction"] == "reverse":
        yield "idle", "nothing to receive, or no worker is free: are workers running (relay workers)"
    if not row["outbox_enabled"]:
        yield "idle", f"nothing to do: outbox {row['outbox']} is disabled and takes no messages"
    yield "idle", "nothing to do"


def _clock(moment: datetime) -> str:
    return moment.strftime("%H:%M:%S.%f")[:-3] + " UTC"
