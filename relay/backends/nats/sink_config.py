"""The keys of the NATS sink, beside those by which it connects (`relay/backends/nats/config.py`)."""

from typing import Annotated

from pydantic import Field

from relay.backends.nats.config import NatsKeys
from relay.backends.sink import SinkConfig


class NatsConfig(NatsKeys, SinkConfig):
    create_stream: bool = False
    """Create the stream if it does not exist; the keys below say how. An existing stream is never changed."""
    stream_subjects: list[str] | None = None
    """Default: the stream's name, and everything below it (`orders`, `orders.>`)."""
    duplicate_window_ms: Annotated[int, Field(ge=100)] = 120_000
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    max_in_flight: Annotated[int, Field(ge=1, le=65_536)] = 1_000
    """Records on the way without an acknowledgement."""
    strict_order: bool = False
    """Only for a stream to which nobody else publishes."""
