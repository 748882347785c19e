"""From what is known of a pipeline to its state, and to why it does not move. No I/O."""

from collections.abc import Iterator
from datetime import datetime

from relay.backends.registry import SOURCES, source_class
from relay.backends.source import PassiveSource
from relay.masking import mask
from relay.operations.base import counted, seconds_text
from relay.operations.job_queues import Numbers
from relay.operations.locks import ending, holder_text
from relay.operations.status_facts import UNSERVED_SECONDS, Facts, Row, Status, is_alive, publisher_text


def judge(facts: Facts) -> Status:
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
        inbox_dead=facts.inbox_dead,
        owner=f"{owner['host']}:{owner['pid']}" if owner else None,
        offset_id=row["offset_id"],
        lag_messages=facts.lag_messages,
        lag_seconds=round(facts.lag_seconds, 3),
        hold_seconds=facts.hold_seconds,
        delivered=row["delivered"] or 0,
        dead_letters=row["dead_letters"] or 0,
        failures=row["failures"] or 0,
        retry_at=row["retry_at"] if row["outcome"] == "failed" else None,
        last_error=row["error"] and mask(row["error"]),
        last_error_code=row["error_code"],
        last_error_at=row["error_at"],
        last_drain_at=row["ended_at"],
        jobs=facts.jobs,
    )


def _reasons(facts: Facts) -> Iterator[tuple[str, str]]:
    """The state and the reason, the strongest first; the last always holds."""
    yield from _stopped(facts)
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


def _passing_over(facts: Facts) -> Iterator[tuple[str, str]]:
    """The last id was read after the offset, so it is above it unless ids came again."""
    row, outbox = facts.row, facts.outbox
    if outbox and row["offset_id"] > outbox.last_id:
        yield "held", (f"its offset {row['offset_id']} is above {outbox.last_id}, the last id of outbox "
                       f"{row['outbox']}: new messages are passed over; run relay restored")  # fmt: skip


def _jobs(facts: Facts, jobs: Numbers) -> Iterator[tuple[str, str]]:
    """Of a queue of jobs: its drains only look, and workers have its jobs."""
    yield from _unowned(facts)
    yield from _retrying(facts.row)
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
    if (row["lease_seconds"] or 0) > 0:
        yield "draining", f"a drain holds the lease until {_clock(row['lease_until'])}"
    yield from _retrying(row)


def _retrying(row: Row) -> Iterator[tuple[str, str]]:
    if row["outcome"] == "failed" and (row["retry_seconds"] or 0) > 0:
        cause = f"{row['error_code']}: {row['error']}" if row["error"] else "its last drain failed"
        yield "retrying", f"waiting for retry until {_clock(row['retry_at'])} because {cause}"


def _waiting(facts: Facts) -> Iterator[tuple[str, str]]:
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
