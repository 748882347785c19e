"""The keys of the Kafka sink, beside those of the connection, and what they mean to librdkafka's producer."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from relay.backends.kafka.client import KafkaKeys, connection_options
from relay.backends.sink import SinkConfig
from relay.errors import ConfigError
from relay.wire.templates import RecordTemplate

LARGEST_RECORD_BYTES = 8 * 1024 * 1024
BATCH_BYTES = 1_000_000
"""Below the 1,048,588 that a broker takes by default (`max.message.bytes`)."""

# What a broker allows by default (`transaction.max.timeout.ms`).
_LONGEST_TRANSACTION_MS = 900_000
_REFERENCE = re.compile(r"\$\{(?:env|file):[^{}]+\}")


def _acks(value: Any) -> Any:
    return "all" if value in (-1, "-1") else str(value)


class KafkaConfig(KafkaKeys, SinkConfig):
    key: str | None = None
    """A template of the record's key; default: the message's own key. What renders empty is no key."""
    acks: Annotated[Literal["all", "1"], BeforeValidator(_acks)] = "all"
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "lz4"
    linger_ms: Annotated[int, Field(ge=0, le=1_000)] = 5
    """How long the producer gathers records for one request while more are handed to it."""
    transactional: bool = False
    transactional_id: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    """Also the consumer group in which the outbox offset is kept. Default: `tide-relay.` and the pipeline's name."""
    create_topic: bool = False
    """Create a topic that does not exist; the keys below say how. An existing topic is never changed."""
    partitions: Annotated[int | None, Field(ge=1, le=10_000)] = None
    """Default: the broker's."""
    replication_factor: Annotated[int | None, Field(ge=1, le=32)] = None
    """Default: the broker's."""

    @field_validator("key")
    @classmethod
    def _valid_key(cls, value: str | None) -> str | None:
        if value is not None and not _REFERENCE.search(value):
            try:
                RecordTemplate(value, "key")
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _promises_hold(self) -> "KafkaConfig":
        if self.transactional and self.acks != "all":
            raise ValueError("transactional needs acks all")
        if self.transactional_id is not None and not self.transactional:
            raise ValueError("transactional_id needs transactional")
        return self


def producer_options(config: KafkaConfig, pipeline: str) -> dict[str, Any]:
    """librdkafka's keys of the producer."""
    # No record gives up by itself: a later one of the same key could then be delivered before it.
    patience_ms = min(2 * config.timeout_ms + 10_000, _LONGEST_TRANSACTION_MS)
    options: dict[str, Any] = {
        "acks": config.acks,
        "enable.idempotence": config.acks == "all",
        "compression.type": config.compression,
        "linger.ms": config.linger_ms,
        "message.max.bytes": LARGEST_RECORD_BYTES,
        "message.timeout.ms": patience_ms,
        "request.timeout.ms": min(config.timeout_ms, 30_000),
        # The wrapper keeps this one to itself: a callback only for a record that was not delivered.
        "delivery.report.only.error": True,
    }
    if config.acks != "all":
        options["max.in.flight.requests.per.connection"] = 1  # what keeps the order without idempotence
    if config.transactional:
        options["transactional.id"] = transactional_id(config, pipeline)
        options["transaction.timeout.ms"] = patience_ms
    # The partition that Java's clients choose for the same key.
    defaults = {"batch.size": BATCH_BYTES, "partitioner": "murmur2_random"}
    return defaults | connection_options(config, pipeline) | options


def transactional_id(config: KafkaConfig, pipeline: str) -> str:
    return config.transactional_id or f"tide-relay.{pipeline}"
