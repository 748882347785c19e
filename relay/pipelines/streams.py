"""What a scheduler and a worker read of the pipeline of a stream table. SQL writes it: see `tide.stream_configure`."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from relay.jobs.cron import next_tick
from relay.jobs.errors import BadOptions
from relay.pipelines.config import Pipeline
from relay.pipelines.validation import refuse, validate


class StreamPipeline(Pipeline):
    """Of a stream table."""

    poll_interval_ms: Annotated[int, Field(ge=100, le=315_360_000_000)] = 1_000
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
    visibility_timeout_ms: Annotated[int, Field(ge=1_000, le=3_600_000)] = 10_000
    """How long a worker that was killed keeps others from it. Renewed while a refresh goes on."""


def stream_table_of(pipeline: str) -> str:
    """The stream table, with its schema, of a pipeline; its number if its name cannot be part of the name of one."""
    return pipeline.removeprefix("streams.")


def parse_stream(config: dict[str, Any]) -> StreamPipeline:
    """Checks the configuration of the pipeline of a stream table. Raises ConfigError."""
    problems: list[str] = []
    pipeline = validate(StreamPipeline, config, sorted(StreamPipeline.model_fields), problems)
    if pipeline and pipeline.cron:
        problems += _cron_problems(pipeline)
    refuse(problems)
    assert pipeline is not None
    return pipeline


def _cron_problems(pipeline: StreamPipeline) -> Iterator[str]:
    try:
        tick = next_tick(pipeline.cron, pipeline.time_zone, datetime.now(UTC), seconds=True)
    except BadOptions as error:
        yield f"schedule: {error}"
    else:
        if tick is None:
            yield f"schedule: {pipeline.cron!r} is never due"
