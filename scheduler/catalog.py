"""What this scheduler can own: the pipelines, read from the database and checked."""

from typing import Any

import structlog

from relay.database.connection import storable
from relay.errors import ConfigError
from relay.pipelines.config import Pipeline, parse_forward, parse_reverse, read_config
from relay.pipelines.jobs import parse_jobs
from relay.pipelines.streams import parse_stream
from relay.process.metrics import PipelineLabels
from relay.process.unforeseen import described, log_bug
from scheduler.session import Session
from scheduler.state import Spec

log = structlog.get_logger(__name__)


class Catalog:
    """The pipelines that this scheduler may own: enabled, valid, and of its group or of none."""

    def __init__(self, relay_group_id: str) -> None:
        self._group = relay_group_id
        self._judged: dict[tuple[str, int], Spec | str] = {}
        self.specs: dict[str, Spec] = {}
        self.groups: dict[str, str] = {}
        """Of every pipeline that some scheduler should own: the group that it names; empty if it names none."""
        self.invalid = 0

    def read(self, session: Session) -> None:
        """Reads all pipelines. Checks each revision once, and records in the database why it is invalid."""
        judged: dict[tuple[str, int], Spec | str] = {}
        self.specs, self.groups, self.invalid = {}, {}, 0
        for row in session.pipelines():
            key = (row["name"], row["revision"])
            verdict = self._judged.get(key) or _judge(row)
            judged[key] = verdict
            reason = storable(verdict) if isinstance(verdict, str) else None
            if reason != row["invalid_reason"]:
                session.mark_invalid(*key, reason)
                if reason:
                    log.error("pipeline is invalid", pipeline=row["name"], reason=reason)
            if isinstance(verdict, str):
                self.invalid += row["enabled"]
            elif verdict.drained and row["enabled"]:
                group = self.groups[row["name"]] = verdict.group
                if group in ("", self._group):
                    self.specs[row["name"]] = verdict
        self._judged = judged


def _judge(row: dict[str, Any]) -> Spec | str:
    """The pipeline's spec, or why its configuration is bad."""
    try:
        values = read_config(row["config"])
        return _READERS[row["direction"]](row, values)
    except ConfigError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  a bug that one configuration meets must not stop the pipelines of others
        log_bug("bug in reading a configuration", error, pipeline=row["name"])
        return f"a bug of tide-relay met this configuration: {described(error)}"


def _forward(row: dict[str, Any], values: dict[str, Any]) -> Spec:
    config = parse_forward(values)
    return _spec(row, config.pipeline, config.pipeline.sink_type, drained=True)


def _reverse(row: dict[str, Any], values: dict[str, Any]) -> Spec:
    config = parse_reverse(values)
    return _spec(row, config.pipeline, config.pipeline.source_type, drained=not config.source_class.features.passive)


def _jobs(row: dict[str, Any], values: dict[str, Any]) -> Spec:
    return _spec(row, parse_jobs(values).pipeline, "jobs", drained=True)


def _stream(row: dict[str, Any], values: dict[str, Any]) -> Spec:
    return _spec(row, parse_stream(values), "stream", drained=True)


_READERS = {"forward": _forward, "reverse": _reverse, "jobs": _jobs, "stream": _stream}


def _spec(row: dict[str, Any], pipeline: Pipeline, backend: str, *, drained: bool) -> Spec:
    return Spec(
        name=row["name"],
        outbox=row["outbox"] or "",
        revision=row["revision"],
        lease_ms=pipeline.visibility_timeout_ms,
        poll_seconds=pipeline.poll_interval_ms / 1000,
        labels=PipelineLabels(row["name"], row["direction"], backend),
        group=pipeline.relay_group_id or "",
        drained=drained,
    )
