"""The keys of the Kafka source, beside those of the connection, and what they mean to librdkafka's consumer."""

import re
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, field_validator

from relay.backends.kafka.client import KafkaKeys, connection_options
from relay.backends.source import MAX_HELD_BYTES, SourceConfig


def _listed(value: Any) -> Any:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


class KafkaSourceConfig(KafkaKeys, SourceConfig):
    topic: Annotated[
        list[str],
        BeforeValidator(_listed),
        Field(min_length=1, validation_alias=AliasChoices("topic", "topics", "kafka_topic")),
    ]
    """One or several, as a list or separated by commas. `^...` is a pattern: all topics whose whole name it matches."""
    group_id: Annotated[str | None, Field(min_length=1, max_length=249)] = None
    """Default: `tide-relay.` and the pipeline's name."""
    auto_offset_reset: Literal["earliest", "latest", "error"] = "earliest"
    """Where a partition begins of which nothing was received yet."""
    on_gap: Literal["error", "continue"] = "error"
    """What to do when messages that were not received yet are gone."""
    refresh_ms: Annotated[int, Field(ge=100, le=3_600_000)] = 30_000
    """How often to look for new partitions, and for new topics of a pattern."""

    @field_validator("topic")
    @classmethod
    def _valid_topics(cls, value: list[str]) -> list[str]:
        for name in value:
            try:
                re.compile(name if name.startswith("^") else "")
            except re.error as error:
                raise ValueError(f"{name!r} begins with ^ and is no pattern: {error}") from None
            if not name:
                raise ValueError("a topic has no name")
        return value


def group_id(config: KafkaSourceConfig, pipeline: str) -> str:
    return config.group_id or f"tide-relay.{pipeline}"


def consumer_options(config: KafkaSourceConfig, pipeline: str) -> dict[str, Any]:
    """librdkafka's keys of the consumer."""
    options = {
        "group.id": group_id(config, pipeline),
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        # Also how long the end of the client waits for the answer to a commit.
        "socket.timeout.ms": min(config.timeout_ms, 60_000),
        # We never join the group. But so long does a commit, and the end of the client, wait for its coordinator.
        "session.timeout.ms": min(config.timeout_ms, 3_000),
        # A position is always given; one that does not exist any more is for us to judge.
        "auto.offset.reset": "error",
        # What waits here, and one answer on its way in, whose bytes are counted before they are decompressed.
        "queued.max.messages.kbytes": MAX_HELD_BYTES // 2 // 1024,
        "fetch.max.bytes": MAX_HELD_BYTES // 8,
        "fetch.message.max.bytes": MAX_HELD_BYTES // 32,
        "queued.min.messages": 10_000,
    }
    # The default is to wait a second when the queue is full.
    defaults = {"fetch.queue.backoff.ms": 5, "fetch.error.backoff.ms": 100}
    return defaults | connection_options(config, pipeline) | options
