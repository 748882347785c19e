"""The standard input source: lines that a person or a program pipes into `relay receive`. No worker drains it.

Here is only what such a pipeline is configured with, and a source that says who does the work. Workers are processes
that nobody pipes anything into; `relay/cli/receive.py` writes the lines in the terminal where it is called.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from relay.errors import ConfigError
from relay.models import Received
from relay.sources.base import Source, SourceConfig, SourceFeatures


class StdinConfig(SourceConfig):
    max_line_bytes: Annotated[int, Field(ge=1_024, le=268_435_456)] = 1_048_576
    """Of a longer line only so much is read, and one byte more."""


class StdinSource(Source):
    features: ClassVar[SourceFeatures] = SourceFeatures(redelivers=False, uses_network=False, passive=True)
    config_model: ClassVar[type[SourceConfig]] = StdinConfig

    def __init__(self, config: SourceConfig, pipeline: str) -> None:  # noqa: ARG002
        self._pipeline = pipeline

    def open(self, positions: Mapping[str, str]) -> None:  # noqa: ARG002
        raise ConfigError(
            f"pipeline {self._pipeline!r}: standard input is read by `relay receive {self._pipeline}`, not by a worker"
        )

    def receive(self, max_messages: int, wait_seconds: float) -> list[Received]:  # noqa: ARG002
        return []

    def ack(self, received: Sequence[Received]) -> None:
        pass

    def rest(self) -> None:
        pass

    def close(self) -> None:
        pass
