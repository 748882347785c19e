"""The keys of the Redis source."""

from typing import Annotated

from pydantic import AliasChoices, Field

from relay.backends.redis.config import RedisKeys
from relay.backends.source import SourceConfig


class RedisSourceConfig(RedisKeys, SourceConfig):
    stream: Annotated[str, Field(min_length=1, validation_alias=AliasChoices("stream", "redis_stream"))]
    group: Annotated[str, Field(min_length=1, validation_alias=AliasChoices("group", "consumer_group"))] = "tide-relay"
    """Made if it does not exist. Two pipelines of one group share the entries between them: give each its own."""
    consumer: Annotated[str | None, Field(min_length=1)] = None
    """Default: the pipeline's name, so that each worker goes on with what another one left."""
    start: Annotated[str, Field(pattern=r"^(0|\$|[0-9]+(-[0-9]+)?)$")] = "0"
    """Where a new group begins: `0` with the stream, `$` with what comes from now on, or after an entry's id."""
    create_stream: bool = False
    """Make the stream if it does not exist, empty."""
    claim_idle_ms: Annotated[int, Field(ge=1, le=2**53)] = 60_000
    """What another consumer of the group received and left without acknowledgement for so long is taken over."""
    body_field: Annotated[str | None, Field(min_length=1)] = None
    """The field that holds the body, in entries of producers that know nothing of this project."""
