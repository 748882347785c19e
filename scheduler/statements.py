"""What a scheduler asks PostgreSQL and writes there: a method for each statement."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from psycopg.rows import dict_row, namedtuple_row

from relay.database.callers.refusals import refusals
from relay.database.connection import Connection, database_errors
from relay.models import Drain
from relay.operations.lag import Behind, read_lags
from relay.operations.locks import Slot, lock_key
from relay.sql import query
from scheduler.state import Spec


class PipelineLag(NamedTuple):
    """How far a pipeline is behind."""

    name: str
    messages: int
    """In ids: those rolled back count too."""
    seconds: float | None
    """Age of the oldest message; None if there is none among these ids."""
    publisher_seconds: float
    """How long the oldest open publisher of its outbox has been open; 0 if there is none."""


class Statements:
    """Every method raises NotConnected when the session is lost."""

    def __init__(self, connection: Connection, scheduler_id: UUID) -> None:
        self._connection = connection
        self.scheduler_id = scheduler_id

    def pipeline_buckets(self) -> dict[int, Any]:
        """Of each bucket of pipelines: what differs if any of them has changed."""
        return {row.bucket: (row.pipelines, row.revisions) for row in self._run("pipeline_buckets")}

    def pipeline_revisions(self, buckets: Sequence[int]) -> list[Any]:
        """The pipelines in these buckets: name, bucket, revision, is_invalid."""
        return self._run("pipeline_revisions", buckets=list(buckets))

    def pipelines(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Of each: bucket, name, direction, enabled, config, revision, invalid_reason, outbox."""
        with database_errors(), self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query("pipeline_configurations"), {"names": list(names)}).fetchall()

    def mark_invalid(self, name: str, revision: int, reason: str | None) -> None:
        self._run("pipeline_invalid", name=name, revision=revision, reason=reason)

    def unowned(self, names: Sequence[str]) -> list[str]:
        """Those of these pipelines that no living scheduler owns."""
        return [row[0] for row in self._run("pipelines_unowned", names=list(names))]

    def drains(self, names: list[str]) -> dict[str, Any]:
        """What became of the last drain of each: see the statement `drains_look`."""
        return {row.name: row for row in self._run("drains_look", names=names)}

    def rescue_jobs(self, silent_seconds: float) -> int:
        """How many jobs of workers that were silent for so long will run again."""
        return int(self._run("jobs_rescue", silent_seconds=silent_seconds)[0][0])

    def job_numbers(self, queues: Sequence[str]) -> list[Any]:
        """For each: queue, due, scheduled, leased, dead, oldest_due_seconds, gaps."""
        return self._run("job_numbers", queues=list(queues))

    def inbox_dead_page(self, after_name: str, max_inboxes: int) -> list[Any]:
        """Of so many inboxes after a name, by name: name, dead (None: it could not be looked at)."""
        return self._run("inbox_dead_page", after_name=after_name, max_inboxes=max_inboxes)

    def stream_numbers(self, after_pipeline: str, max_streams: int) -> list[Any]:
        """Of so many stream tables after the pipeline of one.

        Each: pipeline, is_behind, shown_at, failures, interval_seconds, cron, time_zone, now.
        """
        return self._run("stream_numbers", after_pipeline=after_pipeline, max_streams=max_streams)

    def schedules_due(self, queues: Sequence[str]) -> list[Any]:
        """Of these queues: schedule, queue, cron, time_zone, missed, next_at, now."""
        return self._run("schedules_due", queues=list(queues))

    def fire_schedule(
        self,
        schedule: str,
        seen_at: datetime | None,
        next_at: datetime | None,
        ticks: Sequence[datetime],
        reason: str | None = None,
    ) -> list[int] | None:
        """The ids of the jobs; None if another scheduler has fired it, or it was changed.

        Raises Refused for what the queue refuses: the session is not lost for that.
        """
        parameters = {"seen_at": seen_at, "next_at": next_at, "ticks": list(ticks), "reason": reason}
        with refusals():
            [(ids,)] = self._run("schedule_fire", schedule=schedule, **parameters)
        return None if ids is None else list(ids)

    def maintained_seconds_ago(self) -> float | None:
        """When workers last completed a turn of maintenance; None if they never did."""
        [(seconds,)] = self._run("maintenance_age")
        return None if seconds is None else float(seconds)

    def started(self, drains: Mapping[str, Drain]) -> set[str]:
        """Those of these drains, by the name of their lane, that a worker has started."""
        parameters: dict[str, list[Any]] = {
            "names": list(drains),
            "epochs": [drain.epoch for drain in drains.values()],
            "numbers": [drain.number for drain in drains.values()],
        }
        return {row[0] for row in self._run("drains_begun", **parameters)}

    def take_slots(self, slots: Sequence[Slot], weights: Sequence[int], pipelines: int) -> set[Slot]:
        """Tries their locks until those that it got weigh so many pipelines; returns the slots that are ours now."""
        keys = {lock_key(slot): slot for slot in slots}
        taken = self._run("slots_take", keys=list(keys), weights=list(weights), pipelines=pipelines)
        return {keys[row.key] for row in taken}

    def release_slots(self, slots: Sequence[Slot]) -> None:
        self._run("slots_release", keys=[lock_key(slot) for slot in slots])

    def adopt(self, specs: Sequence[Spec]) -> list[str]:
        """Owns these, whose slots it holds; returns the names. Not those that have another revision now, or lanes that
        there are not yet.
        """
        parameters: dict[str, list[Any]] = {
            "names": [spec.name for spec in specs],
            "pipelines": [spec.pipeline for spec in specs],
            "revisions": [spec.revision for spec in specs],
        }
        return [row[0] for row in self._run("pipelines_adopt", **parameters)]

    def release(self, names: Sequence[str]) -> None:
        """No longer owns these pipelines. Before their slots are released."""
        self._run("pipelines_release", names=list(names))

    def leases_are_whole(self) -> bool:
        return bool(self._run("leases_whole")[0][0])

    def unsure_leases(self) -> list[Any]:
        """Pipelines that may be in a drain that is forgotten: name, outbox_id, offset_id, redelivers."""
        return self._run("leases_unsure")

    def has_messages_after(self, outbox_id: int, after: int) -> bool:
        parameters = {"outbox_id": outbox_id, "after": after}
        with database_errors():
            # Not prepared, it opens only the partitions that it needs.
            row = self._connection.execute(query("messages_after"), parameters, prepare=False).fetchone()
        return bool(row and row[0])

    def remember_leases(self, names: list[str]) -> list[str]:
        """Gives a lease to these, and lets drains begin. Those that got one; none if another scheduler was first."""
        return [row[0] for row in self._run("leases_remember", names=names)]

    def raise_epochs(self, specs: Sequence[Spec]) -> list[Any]:
        """For each: name, epoch (None while a lease runs), retry_seconds, lease_seconds, divides.

        `divides`: the pipeline is to have another number of lanes first; there is no epoch then.
        """
        return self._run("epoch_raise", names=[spec.name for spec in specs], lanes=[spec.lanes for spec in specs])

    def change_lanes(self, pipeline: str, lanes: int) -> bool:
        """Whether the pipeline has so many lanes now; not while a drain of one before holds its lease."""
        return bool(self._run("lanes_change", pipeline=pipeline, lanes=lanes)[0].changed)

    def silence(self, drain: Drain) -> None:
        """Silences the bell of a pipeline whose drain is in the queue and has not started."""
        self._run("bell_silence", pipeline=drain.pipeline, epoch=drain.epoch, number=drain.number)

    def behind(self, names: list[str]) -> set[str]:
        return {row[0] for row in self._run("pipelines_behind", names=names)}

    def asleep(self, names: list[str]) -> set[str]:
        """Those of these pipelines that their last drain left asleep, and for which nothing has come since."""
        return {row[0] for row in self._run("pipelines_asleep", names=names)}

    def refreshes_begun(self, names: Sequence[str]) -> dict[str, float]:
        """How many seconds ago the last refresh began. Not of those that are to be refreshed at once."""
        return {row.pipeline: row.seconds for row in self._run("refreshes_begun", names=list(names))}

    def outbox_pages(
        self, statement: Literal["outbox_page_ahead", "outbox_page_unsettled"], most: int
    ) -> Iterator[Any]:
        """What the statement says of all outboxes, so many at a time: outboxes, last_id, and names of some of them."""
        after_id, full = 0, True
        while full:
            [page] = self._run(statement, after_id=after_id, max_outboxes=most)
            after_id, full = page.last_id, page.outboxes == most
            yield page

    def offsets_ahead(self, outboxes: Sequence[str]) -> list[Any]:
        """Consumer groups that pass over new messages: outbox, consumer_group, offset_id, last_id."""
        return self._run("offsets_ahead", names=list(outboxes))

    def lag(self, names: list[str]) -> list[PipelineLag]:
        """Of those that are behind."""
        found = self._run("pipelines_lag", names=names)
        with database_errors():
            behind = (Behind(row.outbox_id, row.offset_id, row.last_id) for row in found)
            lags = read_lags(self._connection, behind, count_limit=1)
        ages = dict(self._run("publisher_ages", outbox_ids=list({row.outbox_id for row in found}))) if found else {}
        return [
            PipelineLag(
                row.name,
                row.last_id - row.offset_id,
                lag.seconds if (lag := lags.get((row.outbox_id, row.offset_id))) else None,
                ages.get(row.outbox_id, 0.0),
            )
            for row in found
        ]

    def outbox_page(self, after_id: int, max_outboxes: int) -> Any:
        """Of so many outboxes after one: last_id, outboxes (how many), needing (those that need partitions)."""
        return self._run("outbox_page", after_id=after_id, max_outboxes=max_outboxes)[0]

    def outboxes_needing(self, names: Sequence[str]) -> list[str]:
        """Those of these outboxes that need partitions."""
        return [row[0] for row in self._run("outboxes_needing", names=list(names))]

    def extend_outbox(self, name: str) -> None:
        """Makes partitions ahead of need. Raises NotConnected with code `locked` if a publisher is in the way."""
        self._run("outbox_extend", name=name)

    def take_turn(self, interval_seconds: float) -> bool:
        """Whether this scheduler is the one that asks for maintenance now."""
        return bool(self._run("chore_take", interval_seconds=interval_seconds))

    def holds(self, outboxes: Sequence[str]) -> list[Any]:
        """What is held for some time only: outbox, consumer_group, seconds_left and more."""
        return self._run("holds", names=list(outboxes))

    def _run(self, statement: str, /, **parameters: Any) -> list[Any]:
        with database_errors(), self._connection.cursor(row_factory=namedtuple_row) as cursor:
            cursor.execute(query(statement), {"scheduler_id": self.scheduler_id, **parameters})
            return cursor.fetchall() if cursor.description else []
