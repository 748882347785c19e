"""The standard input source: lines that a person or a program pipes into `relay receive`. No worker drains it.

Here is only what such a pipeline is configured with, and a source that says who does the work. Workers are processes
that nobody pipes anything into; `relay/cli/receive.py` writes the lines in the terminal where it is called.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from relay.backends.source import PassiveSource, SourceConfig, SourceFeatures


class StdinConfig(SourceConfig):
    max_line_bytes: Annotated[int, Field(ge=1_024, le=268_435_456)] = 1_048_576
    """Of a longer line only so much is read, and one byte more."""


class StdinSource(PassiveSource):
    features: ClassVar[SourceFeatures] = SourceFeatures(redelivers=False, uses_network=False, passive=True)
    config_model: ClassVar[type[SourceConfig]] = StdinConfig
    brought_by = "relay receive {pipeline}"
