"""What a scheduler and a worker read of the pipeline of a stream table. SQL writes it: see `tide.stream_configure`."""

from typing import Annotated, Any

from pydantic import Field

from relay.pipelines.config import Pipeline
from relay.pipelines.validation import refuse, validate


class StreamPipeline(Pipeline):
    """Of a stream table."""

    poll_interval_ms: Annotated[int, Field(ge=100, le=315_360_000_000)] = 1_000
    """Its schedule: how long after the start of a refresh the next one may begin."""
    follows: tuple[str, ...] = ()
    """The pipelines of the stream tables whose refreshes make it due."""
    visibility_timeout_ms: Annotated[int, Field(ge=1_000, le=3_600_000)] = 10_000
    """How long a worker that was killed keeps others from it. Renewed while a refresh goes on."""


def parse_stream(config: dict[str, Any]) -> StreamPipeline:
    """Checks the configuration of the pipeline of a stream table. Raises ConfigError."""
    problems: list[str] = []
    pipeline = validate(StreamPipeline, config, sorted(StreamPipeline.model_fields), problems)
    refuse(problems)
    assert pipeline is not None
    return pipeline
