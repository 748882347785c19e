"""The status of each pipeline, and why it does not move.

Messages are read last, and only of outboxes that lag: the list of pipelines itself reads none.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from relay.database.connection import Connection, database_errors
from relay.errors import ConfigError
from relay.operations import fleet, inboxes, job_queues, status_facts
from relay.operations.base import rows
from relay.operations.lag import Behind, Lags, read_lags
from relay.operations.locks import strangers
from relay.operations.status_facts import Facts, Outbox, Row, Status
from relay.operations.status_reasons import judge

__all__ = ["Look", "Status", "look", "read_status"]


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the pipelines showed."""

    statuses: Sequence[Status]
    at: datetime
    """By the clock of this process."""
    read_only: str | None
    """Why PostgreSQL takes no writes, if it takes none: nothing moves then."""


def look(connection: Connection, names: Sequence[str] = ()) -> Look:
    """`read_status`, and what else there is to know about them. Raises what that raises."""
    found = rows(connection, "read_only")
    read_only = next(iter(found[0].values())) if found else None
    return Look(read_status(connection, names), datetime.now(UTC), read_only)


def read_status(connection: Connection, names: Sequence[str] = ()) -> list[Status]:
    """The pipelines of these names, or all, by name. `connection` is in autocommit.

    Raises ConfigError if one does not exist, NotConnected, MigrationError.
    """
    with database_errors():
        return [judge(facts) for facts in _read(connection, names)]


def _read(connection: Connection, names: Sequence[str]) -> Iterator[Facts]:
    schedulers = rows(connection, "status_schedulers")
    pipelines = rows(connection, "status_pipelines", names=list(names) or None, count_limit=status_facts.COUNT_LIMIT)
    workers = [process for process in fleet.processes(connection) if process.kind == "workers"]
    if missing := sorted(set(names) - {row["name"] for row in pipelines}):
        raise ConfigError(f"pipeline {', '.join(missing)} does not exist; list them: relay pipeline list")
    # A queue of jobs has numbers of its own, and no messages.
    jobs = {f"jobs.{found.queue}": found for found in _read_jobs(connection, pipelines)}
    messages = [row for row in pipelines if row["direction"] not in ("jobs", "stream")]
    outboxes = _read_outboxes(connection, messages)
    lags = _read_lags(connection, messages, outboxes)
    holds = _read_holds(connection, messages)
    dead = _read_dead(connection, pipelines)
    held_by = strangers(connection, {row["name"]: row["relay_group_id"] or "" for row in pipelines})
    for row in pipelines:
        outbox, lag = outboxes.get(row["outbox_id"]), lags.get((row["outbox_id"], row["offset_id"]))
        yield Facts(row, schedulers, outbox, lag, holds.get(row["name"]), held_by.get(row["name"]),
                    jobs.get(row["name"]), dead.get(row["inbox"]), workers)  # fmt: skip


def _read_jobs(connection: Connection, pipelines: Sequence[Row]) -> list[job_queues.Numbers]:
    queues = [row["name"] for row in pipelines if row["direction"] == "jobs"]
    return job_queues.stats(connection) if queues else []


def _read_dead(connection: Connection, pipelines: Sequence[Row]) -> dict[str, int | None]:
    """By inbox."""
    names = sorted({row["inbox"] for row in pipelines if row["inbox"]})
    return {found.inbox: found.dead for found in inboxes.dead_numbers(connection, names)} if names else {}


def _read_outboxes(connection: Connection, pipelines: Sequence[Row]) -> dict[int, Outbox]:
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
        outbox_id: Outbox(
            last_id,
            horizons.get(outbox_id, last_id),
            publishers.get(names[outbox_id], ()),
            others.get(names[outbox_id], ()),
        )
        for outbox_id, last_id in last_ids.items()
        if last_id is not None  # else the outbox was dropped a moment ago
    }


def _read_lags(connection: Connection, pipelines: Sequence[Row], outboxes: Mapping[int, Outbox]) -> Lags:
    read_by = ((row, outboxes[row["outbox_id"]]) for row in pipelines if row["outbox_id"] in outboxes)
    behind = (
        Behind(row["outbox_id"], row["offset_id"], outbox.last_id)
        for row, outbox in read_by
        if row["offset_id"] < outbox.last_id
    )
    return read_lags(connection, behind, status_facts.COUNT_LIMIT)


def _read_holds(connection: Connection, pipelines: Sequence[Row]) -> dict[str, float]:
    """Seconds that retention still waits, by pipeline: those that are stopped, where the wait ends soon."""
    stopped = [row for row in pipelines if not row["enabled"] or row["invalid_reason"]]
    outbox_ids = list({row["outbox_id"] for row in stopped if row["outbox_id"] is not None})
    found = rows(connection, "status_holds", outbox_ids=outbox_ids) if outbox_ids else []
    names = {row["name"] for row in stopped}
    return {row["pipeline"]: max(0.0, row["seconds_left"]) for row in found if row["pipeline"] in names}
