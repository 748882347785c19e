"""The keys of standard output and standard input."""

from typing import Annotated

from pydantic import Field

from relay.backends.sink import SinkConfig
from relay.backends.source import SourceConfig


class StdoutSinkConfig(SinkConfig):
    """It has the keys of every sink."""


class StdinSourceConfig(SourceConfig):
    max_line_bytes: Annotated[int, Field(ge=1_024, le=268_435_456)] = 1_048_576
    """Of a longer line only so much is read, and one byte more."""
