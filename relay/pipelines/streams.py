"""What a scheduler and a worker read of the pipeline of a stream table. SQL writes it: see `tide.stream_configure`."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from relay.jobs.cron import next_tick
from relay.jobs.errors import BadOptions
from relay.pipelines.config import Pipeline
from relay.pipelines.validation import refuse, validate

Milliseconds = Annotated[int, Field(ge=100, le=315_360_000_000)]


class StreamSchedule(BaseModel):
    """Of one of a group."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    poll_interval_ms: Milliseconds = 1_000
    cron: str = ""
    time_zone: str = "UTC"
    follows: tuple[str, ...] = ()


class StreamPipeline(Pipeline):
    """Of a stream table, or of one that leads a group."""

    poll_interval_ms: Milliseconds = 1_000
    """Its schedule: how long after the start of a refresh the next one may begin."""
    cron: str = ""
    """At which times it is refreshed, instead of after an interval; five fields, or six that begin with the seconds."""
    time_zone: str = "UTC"
    """Of the times of `cron`."""
    follows: tuple[str, ...] = ()
    """The pipelines of the stream tables whose refreshes make it due."""
    tier: Literal["hot", "warm", "cold"] = "hot"
    """Which goes first, of those that are as much overdue."""
    immediate: bool = False
    """Whether its writers maintain it, once it has been refreshed: mode IMMEDIATE."""
    members: tuple[str, ...] = ()
    """The pipelines of a group, which this one leads, in the order in which their stream tables are refreshed."""
    schedules: tuple[StreamSchedule, ...] = ()
    """Of the group, which is due when the first of them is."""
    part_of: str = ""
    """The pipeline that leads the group, and refreshes this stream table too; no scheduler owns this one."""
    visibility_timeout_ms: Annotated[int, Field(ge=1_000, le=3_600_000)] = 10_000
    """How long a worker that was killed keeps others from it. Renewed while a refresh goes on."""


def stream_table_of(pipeline: str) -> str:
    """The stream table, with its schema, of a pipeline; its number if its name cannot be part of the name of one."""
    return pipeline.removeprefix("streams.")


def parse_stream(config: dict[str, Any]) -> StreamPipeline:
    """Checks the configuration of the pipeline of a stream table. Raises ConfigError."""
    problems: list[str] = []
    pipeline = validate(StreamPipeline, config, sorted(StreamPipeline.model_fields), problems)
    if pipeline:
        schedules: list[StreamPipeline | StreamSchedule] = [pipeline, *pipeline.schedules]
        for schedule in schedules:
            problems += _cron_problems(schedule)
    refuse(problems)
    assert pipeline is not None
    return pipeline


def _cron_problems(schedule: StreamPipeline | StreamSchedule) -> Iterator[str]:
    if not schedule.cron:
        return
    try:
        tick = next_tick(schedule.cron, schedule.time_zone, datetime.now(UTC), seconds=True)
    except BadOptions as error:
        yield f"schedule: {error}"
    else:
        if tick is None:
            yield f"schedule: {schedule.cron!r} is never due"
