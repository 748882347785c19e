"""From what is known of a pipeline to its state, and to why it does not move. No I/O."""

from collections.abc import Iterator
from datetime import datetime

from relay.backends.registry import SOURCES, source_class
from relay.backends.source import PassiveSource
from relay.masking import mask
from relay.operations.base import counted, seconds_text
from relay.operations.fleet import waiting_text
from relay.operations.job_queues import Numbers
from relay.operations.locks import ending, holder_text
from relay.operations.status_facts import UNSERVED_SECONDS, Facts, Row, Status, is_alive, publisher_text


def judge(facts: Facts) -> Status:
    row, owner = facts.row, facts.owner
    state, why = next(_reasons(facts))
    if row["error"] and state not in ("retrying", "broken"):
        why += f"; its last drain failed: {failed_for(row)}"
    is_retried = row["outcome"] == "failed" and row["retry_at"] is not None
    return Status(
        name=row["name"],
        direction=row["direction"],
        state=state,
        why=mask(f"lane {row['lane']} of {row['lanes']}: {why}" if row["lanes"] > 1 else why),
        outbox=row["outbox"],
        consumer_group=row["consumer_group"],
        sink_type=row["sink_type"],
        source_type=row["source_type"],
        inbox=row["inbox"],
        inbox_dead=facts.inbox_dead,
        owner=f"{owner['host']}:{owner['pid']}" if owner else None,
        lanes=row["lanes"],
        lane=row["lane"] or 0,
        offset_id=row["offset_id"],
        lag_messages=facts.lag_messages,
        lag_seconds=round(facts.lag_seconds, 3),
        hold_seconds=facts.hold_seconds,
        delivered=row["delivered"] or 0,
        dead_letters=row["dead_letters"],
        dead_letters_ever=row["dead_letters_ever"] or 0,
        failures=row["failures"] or 0,
        retry_at=row["retry_at"] if is_retried else None,
        retry_seconds=round(max(0.0, row["retry_seconds"]), 3) if is_retried else None,
        last_error=row["error"] and mask(row["error"]),
        last_error_code=row["error_code"],
        last_error_at=row["error_at"],
        last_drain_at=row["ended_at"],
        jobs=facts.jobs,
    )


def _reasons(facts: Facts) -> Iterator[tuple[str, str]]:
    """The state and the reason, the strongest first; the last always holds."""
    yield from _stopped(facts)
    if facts.row["direction"] == "stream":
        yield from _stream(facts)
    else:
        yield from _of_pipeline(facts) if facts.jobs is None else _jobs(facts, facts.jobs)


def _of_pipeline(facts: Facts) -> Iterator[tuple[str, str]]:
    source_type = facts.row["source_type"]
    if source_type in SOURCES and issubclass(kind := source_class(source_type), PassiveSource):
        command = kind.brought_by.format(pipeline=facts.row["name"])
        yield "idle", f"no worker drains it: its messages are stored by `{command}`"
    yield from _passing_over(facts)
    yield from _unowned(facts)
    yield from _draining(facts.row)
    yield from _waiting(facts)


def _stream(facts: Facts) -> Iterator[tuple[str, str]]:
    """Of a stream table: its drains refresh it."""
    yield from _unowned(facts)
    yield from _draining(facts.row)
    yield "idle", "refreshed when its sources change: relay stream list"


def _passing_over(facts: Facts) -> Iterator[tuple[str, str]]:
    """The last id was read after the offset, so it is above it unless ids came again."""
    row, outbox = facts.row, facts.outbox
    if outbox and row["offset_id"] > outbox.last_id:
        yield "held", (f"its offset {row['offset_id']} is above {outbox.last_id}, the last id of outbox "
                       f"{row['outbox']}: new messages are passed over; run relay restored")  # fmt: skip


def _jobs(facts: Facts, jobs: Numbers) -> Iterator[tuple[str, str]]:
    """Of a queue of jobs: its drains only look, and workers have its jobs."""
    yield from _unowned(facts)
    if not _is_leased(facts.row):
        yield from _failed(facts.row)
    if jobs.oldest_due_seconds > UNSERVED_SECONDS:
        if not jobs.workers:
            yield "waiting", "no worker serves it: start one with relay workers --jobs MODULE"
        if jobs.concurrency_limit is not None and jobs.leased >= jobs.concurrency_limit:
            yield "waiting", f"as many jobs run as its limit allows: {jobs.concurrency_limit}"
    if jobs.leased:
        yield "running", f"{counted(jobs.leased, 'job is', 'jobs are')} leased, {counted(jobs.due, 'is', 'are')} due"
    if jobs.due:
        yield "waiting", ("no worker has room, or a limit is reached" if jobs.oldest_due_seconds > UNSERVED_SECONDS
                          else "a drain is about to begin")  # fmt: skip
    if jobs.scheduled:
        yield "idle", f"nothing is due; {counted(jobs.scheduled, 'waits for its', 'wait for their')} time"
    yield "idle", "nothing to do"


def _stopped(facts: Facts) -> Iterator[tuple[str, str]]:
    row, seconds = facts.row, facts.hold_seconds
    ending = "" if seconds is None else f"; what it has not delivered may be let go in {seconds_text(seconds)}"
    if not row["enabled"] and facts.jobs is not None:
        yield "disabled", f"paused: relay jobs queue resume {facts.jobs.queue}"
    if not row["enabled"] and row["direction"] == "stream":
        yield "disabled", "suspended, frozen or disabled: relay stream list"
    if not row["enabled"]:
        yield "disabled", f"disabled: relay pipeline enable {row['name']}{ending}"
    if row["invalid_reason"]:
        yield "invalid", f"invalid: {row['invalid_reason']}{ending}"


def _unowned(facts: Facts) -> Iterator[tuple[str, str]]:
    if facts.owner is not None:
        return
    if facts.stranger:
        holder = holder_text(facts.stranger)
        yield "unowned", (f"no scheduler can own it: {holder}, which is no scheduler, holds its lock; "
                          f"end it: {ending(facts.stranger)}")  # fmt: skip
    group = facts.row["relay_group_id"]
    alive = [s for s in facts.schedulers if is_alive(s) and group in (None, s["relay_group_id"])]
    of_group = f" of group {group}" if group else ""
    if not alive:
        yield "unowned", f"no scheduler{of_group} is alive: start relay-scheduler"
    yield "unowned", f"no scheduler owns it yet; {len(alive)}{of_group} alive, one takes it within a second or two"


def _draining(row: Row) -> Iterator[tuple[str, str]]:
    if _is_leased(row):
        yield "draining", f"a drain holds the lease until {_clock(row['lease_until'])}"
    yield from _failed(row)


def _is_leased(row: Row) -> bool:
    return (row["lease_seconds"] or 0) > 0


def _failed(row: Row) -> Iterator[tuple[str, str]]:
    """Broken: until a drain ends otherwise, or the pipeline is changed. Retrying: until the retry is due."""
    if row["outcome"] != "failed" or row["retry_at"] is None:
        return
    overdue = row["retry_seconds"] < -UNSERVED_SECONDS
    if row["needs_operator"]:
        yield "broken", failed_for(row) + (f"; {_OVERDUE}" if overdue else "")
    yield ("waiting", _OVERDUE) if overdue else ("retrying", failed_for(row))


_OVERDUE = (
    "a retry is due but none begins: are workers running (relay workers), and do they use the broker of the scheduler?"
)


def failed_for(row: Row) -> str:
    """What the last drain failed for. That it is this pipeline is clear here."""
    if not row["error"]:
        return "its last drain failed"
    error = row["error"].removeprefix(f"pipeline {row['name']!r}: ")
    return f"{row['error_code']}: {error}"


def _unserved(facts: Facts) -> Iterator[tuple[str, str]]:
    """Why no drain of it can begin, if that is known."""
    owner, queue = facts.owner, facts.queue
    if owner is not None and owner["broker_trouble"]:
        yield "waiting", f"its scheduler cannot use the broker: {owner['broker_trouble']}"
    if not facts.workers:
        yield "waiting", "no worker is alive: start relay workers"
    if not facts.is_served:
        lost = [w for w in facts.workers if queue in w.lacking]
        yield "waiting", (f"no worker is connected to its queue {queue}: see the log of {lost[0].where}" if lost else
                          f"no worker serves its queue {queue}: start relay workers --queues {queue}")  # fmt: skip


def _waiting(facts: Facts) -> Iterator[tuple[str, str]]:
    row, outbox = facts.row, facts.outbox
    if facts.lag and facts.is_readable:
        if facts.lag.seconds > UNSERVED_SECONDS:
            yield from _unserved(facts)
            yield "waiting", f"{_untaken(facts)}: relay doctor says whether workers use the broker of the scheduler"
        yield "waiting", "a drain is about to begin"
    if outbox and outbox.publishers:
        more = f" (and {len(outbox.publishers) - 1} more)" if len(outbox.publishers) > 1 else ""
        yield "held", f"{publisher_text(outbox.publishers[0])} holds the horizon at {outbox.horizon}{more}"
    if row["direction"] == "reverse":
        yield from _unserved(facts)
        if facts.waiting.is_long:
            yield "waiting", f"{_untaken(facts)}: no worker is free, or they use another broker: relay doctor"
        yield "idle", "nothing to receive"
    if not row["outbox_enabled"]:
        yield "idle", f"nothing to do: outbox {row['outbox']} is disabled and takes no messages"
    if outbox and outbox.others:
        other = outbox.others[0]
        yield "idle", (f"nothing to do; {holder_text(other)}, holds locks like those of a publisher of outbox "
                       f"{row['outbox']}, and is not publishing: it holds nothing back")  # fmt: skip
    yield "idle", "nothing to do"


def _untaken(facts: Facts) -> str:
    if facts.waiting.is_long:
        return waiting_text(facts.queue, facts.waiting)
    return "a drain is due but none begins"


def _clock(moment: datetime) -> str:
    return moment.strftime("%H:%M:%S.%f")[:-3] + " UTC"
