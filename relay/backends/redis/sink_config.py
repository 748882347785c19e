"""The keys of the Redis sink. Where each record goes is its subject, under the key `stream`."""

from typing import Annotated

from pydantic import Field

from relay.backends.redis.config import RedisKeys
from relay.backends.sink import SinkConfig


class RedisConfig(RedisKeys, SinkConfig):
    maxlen: Annotated[int | None, Field(ge=1)] = None
    """Keep about so many entries in each stream; None keeps all."""
    approximate: bool = True
    """Trim when it costs nothing (`~`), so that a stream may be longer than `maxlen` by some hundred entries."""
    exactly_once: bool = False
    """Entry ids are made from message ids, `<id>-0`, which Redis takes once. Nobody else may write to the streams."""
    wait_replicas: Annotated[int, Field(ge=0, le=100)] = 0
    """Delivered means: received by so many replicas."""
