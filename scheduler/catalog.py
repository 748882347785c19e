"""What this scheduler can own: the pipelines, read from the database and checked.

Where there are many, most have not changed. The database answers with a fingerprint of each bucket of pipelines; the
revisions are read of the buckets that differ, and the configurations of the revisions that are not known yet.
"""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import structlog

from relay.database.connection import storable
from relay.errors import ConfigError
from relay.pipelines.config import Pipeline, parse_forward, parse_reverse, read_config
from relay.pipelines.jobs import parse_jobs
from relay.pipelines.streams import StreamPipeline, StreamSchedule, parse_stream
from relay.process.metrics import PipelineLabels
from relay.process.unforeseen import described, log_bug
from scheduler.chores import Pieces, pages
from scheduler.refreshes import Clock, Cron, Refreshes
from scheduler.state import Spec
from scheduler.statements import Statements

log = structlog.get_logger(__name__)

# Of one question each: a few milliseconds.
BUCKETS = 32
CONFIGURATIONS = 25


class Catalog:
    """The pipelines that this scheduler may own: enabled, valid, and of its group or of none."""

    def __init__(self, relay_group_id: str, clock: Clock | None = None) -> None:
        self._group = relay_group_id
        self._clock = clock or Clock()
        self._fingerprints: dict[int, Any] = {}
        self._buckets: defaultdict[int, dict[str, tuple[int, Spec | str]]] = defaultdict(dict)
        """The revision of each pipeline, and the verdict on it."""
        self._lanes: dict[str, list[str]] = {}
        """Of each pipeline in `specs`, the names of its lanes there."""
        self._wrong: set[str] = set()
        self._changed: set[str] = set()
        self.specs: dict[str, Spec] = {}
        """Of each lane, by its name."""
        self.groups: dict[str, str] = {}
        """Of every pipeline that some scheduler should own: the group that it names; empty if it names none."""
        self.is_complete = False
        """Whether all pipelines have been read at least once."""

    @property
    def invalid(self) -> int:
        """How many are enabled and have an invalid configuration."""
        return len(self._wrong)

    def take_changed(self) -> set[str]:
        """The pipelines, and further lanes of them, that were created, changed or deleted, since it was last asked."""
        changed, self._changed = self._changed, set()
        return changed

    def read(self, session: Statements) -> Pieces:
        """Reads what has changed. Checks each revision once, and records in the database why it is invalid."""
        found = session.pipeline_buckets()
        gone = self._fingerprints.keys() - found.keys()
        differing = [bucket for bucket in {*found, *gone} if found.get(bucket) != self._fingerprints.get(bucket)]
        for buckets in pages(differing, BUCKETS):
            unknown = self._compare(session, buckets)
            yield
            for names in pages(unknown, CONFIGURATIONS):
                for row in session.pipelines(names):
                    self._take(session, row)
                yield
            # What changed after the fingerprints were taken differs from them, and is read the next time.
            self._fingerprints |= {bucket: found.get(bucket) for bucket in buckets}
        self.is_complete = True

    def _compare(self, session: Statements, buckets: Any) -> list[str]:
        """Forgets what is gone from these buckets; returns the pipelines whose configuration must be read."""
        seen: dict[int, set[str]] = {bucket: set() for bucket in buckets}
        unknown = []
        for name, bucket, revision, is_invalid in session.pipeline_revisions(buckets):
            seen[bucket].add(name)
            known = self._buckets[bucket].get(name)
            if known is None or known[0] != revision or isinstance(known[1], str) is not is_invalid:
                unknown.append(name)
        for bucket, names in seen.items():
            for name in self._buckets[bucket].keys() - names:
                del self._buckets[bucket][name]
                self._forget(name)
        return unknown

    def _take(self, session: Statements, row: dict[str, Any]) -> None:
        name, revision = row["name"], row["revision"]
        known = self._buckets[row["bucket"]].get(name)
        verdict = known[1] if known and known[0] == revision else _judge(row, self._clock)
        self._buckets[row["bucket"]][name] = (revision, verdict)
        reason = storable(verdict) if isinstance(verdict, str) else None
        if reason != row["invalid_reason"]:
            session.mark_invalid(name, revision, reason)
            if reason:
                log.error("pipeline is invalid", pipeline=name, reason=reason)
        if known and known[1] is verdict:
            return
        self._forget(name)
        if isinstance(verdict, str):
            self._wrong |= {name} if row["enabled"] else set()
        elif verdict.drained and row["enabled"]:
            self.groups[name] = verdict.group
            if verdict.group in ("", self._group):
                lanes = {each.name: each for each in verdict.each_lane()}
                self._lanes[name] = list(lanes)
                self._changed.update(lanes)
                self.specs |= lanes

    def _forget(self, name: str) -> None:
        self._wrong.discard(name)
        for lane in self._lanes.pop(name, [name]):
            self._changed.add(lane)
            self.specs.pop(lane, None)
        self.groups.pop(name, None)


def _judge(row: dict[str, Any], clock: Clock) -> Spec | str:
    """The pipeline's spec, or why its configuration is bad."""
    try:
        values = read_config(row["config"])
        if row["direction"] == "stream":
            return _stream(row, values, clock)
        return _READERS[row["direction"]](row, values)
    except ConfigError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  a bug that one configuration meets must not stop the pipelines of others
        log_bug("bug in reading a configuration", error, pipeline=row["name"])
        return f"a bug of tide-relay met this configuration: {described(error)}"


def _forward(row: dict[str, Any], values: dict[str, Any]) -> Spec:
    config = parse_forward(values)
    return replace(_spec(row, config.pipeline, config.pipeline.sink_type, drained=True), lanes=config.pipeline.lanes)


def _reverse(row: dict[str, Any], values: dict[str, Any]) -> Spec:
    config = parse_reverse(values)
    drained = not config.source_class.features.passive
    return replace(
        _spec(row, config.pipeline, config.pipeline.source_type, drained=drained), lanes=config.pipeline.lanes
    )


def _jobs(row: dict[str, Any], values: dict[str, Any]) -> Spec:
    return _spec(row, parse_jobs(values).pipeline, "jobs", drained=True)


def _stream(row: dict[str, Any], values: dict[str, Any], clock: Clock) -> Spec:
    config = parse_stream(values)
    first, *others = [_refreshes(each, config.tier, clock) for each in config.schedules or (config,)]
    refreshes = replace(first, others=tuple(others))
    return _spec(row, config, "stream", drained=not config.part_of, refreshes=refreshes)


def _refreshes(schedule: StreamPipeline | StreamSchedule, tier: str, clock: Clock) -> Refreshes:
    cron = Cron(schedule.cron, schedule.time_zone, clock) if schedule.cron else None
    return Refreshes(schedule.poll_interval_ms / 1000, schedule.follows, cron, tier)


_READERS = {"forward": _forward, "reverse": _reverse, "jobs": _jobs}


def _spec(
    row: dict[str, Any], pipeline: Pipeline, backend: str, *, drained: bool, refreshes: Refreshes | None = None
) -> Spec:
    return Spec(
        name=row["name"],
        outbox=row["outbox"] or "",
        revision=row["revision"],
        lease_ms=pipeline.visibility_timeout_ms,
        poll_seconds=pipeline.poll_interval_ms / 1000,
        labels=PipelineLabels(row["name"], row["direction"], backend),
        group=pipeline.relay_group_id or "",
        drained=drained,
        refreshes=refreshes,
    )
