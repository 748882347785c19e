"""The keys of the memory backends."""

from relay.backends.sink import SinkConfig
from relay.backends.source import SourceConfig


class MemorySinkConfig(SinkConfig):
    name: str = "default"
    """Sinks of one name share a store."""


class MemorySourceConfig(SourceConfig):
    name: str = "default"
    """Sources of one name receive from one log."""
