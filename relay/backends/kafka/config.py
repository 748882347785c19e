"""The keys of Kafka: of the connection, the sink and the source, and what they mean to librdkafka."""

import re
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from relay.backends.common.keys import AsciiHost, Listed, check_template
from relay.backends.common.tls import check_readable
from relay.backends.sink import SinkConfig
from relay.backends.source import MAX_HELD_BYTES, SourceConfig

LARGEST_RECORD_BYTES = 8 * 1024 * 1024
BATCH_BYTES = 1_000_000
"""Below the 1,048,588 that a broker takes by default (`max.message.bytes`)."""

# What a broker allows by default (`transaction.max.timeout.ms`).
_LONGEST_TRANSACTION_MS = 900_000

TUNING = frozenset({
    "api.version.fallback.ms", "api.version.request", "api.version.request.timeout.ms", "batch.num.messages",
    "batch.size", "broker.address.family", "broker.address.ttl", "broker.version.fallback", "check.crcs",
    "client.dns.lookup", "client.rack", "compression.level", "connections.max.idle.ms", "fetch.error.backoff.ms",
    "fetch.min.bytes", "fetch.queue.backoff.ms", "fetch.wait.max.ms", "message.copy.max.bytes", "metadata.max.age.ms",
    "metadata.recovery.rebootstrap.trigger.ms", "metadata.recovery.strategy", "partitioner",
    "queue.buffering.backpressure.threshold", "queue.buffering.max.kbytes", "queue.buffering.max.messages",
    "receive.message.max.bytes", "reconnect.backoff.max.ms", "reconnect.backoff.ms", "retry.backoff.max.ms",
    "retry.backoff.ms", "socket.connection.setup.timeout.ms", "socket.keepalive.enable", "socket.max.fails",
    "socket.nagle.disable", "socket.receive.buffer.bytes", "socket.send.buffer.bytes", "ssl.ca.pem",
    "ssl.certificate.pem", "ssl.cipher.suites", "ssl.curves.list", "ssl.key.pem", "ssl.sigalgs.list",
    "sticky.partitioning.linger.ms", "topic.metadata.propagation.max.ms", "topic.metadata.refresh.fast.interval.ms",
    "topic.metadata.refresh.interval.ms", "topic.metadata.refresh.sparse",
})  # fmt: skip
"""librdkafka's keys that a pipeline may set. All others have a key of ours, decide what is promised, call back, run
programs, load code, or name files of the worker's machine."""


def _joined(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _checked_options(value: dict[str, Any]) -> dict[str, Any]:
    if refused := sorted(value.keys() - TUNING):
        raise ValueError(
            f"{', '.join(refused)} cannot be set here: it is unknown, has a key of its own, delivery depends on it, or "
            "it reaches files or programs of the worker's machine (see the page of Kafka in the documentation)"
        )
    return value


class KafkaKeys(BaseModel):
    """The keys of a connection."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)

    brokers: Annotated[
        AsciiHost,
        BeforeValidator(_joined),
        Field(min_length=1, validation_alias=AliasChoices("brokers", "kafka_brokers", "bootstrap_servers")),
    ]
    """`host:port`, several of one cluster separated by commas, or as a list."""
    security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] | None = None
    """Default: by the other keys. With `sasl_*` and without this key the connection is encrypted."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """Default: PLAIN where there is a user name."""
    sasl_username: str | None = None
    sasl_password: Annotated[str | None, Field(repr=False)] = None
    ssl_ca: str | None = None
    ssl_cert: str | None = None
    ssl_key: str | None = None
    ssl_key_password: Annotated[str | None, Field(repr=False)] = None
    ssl_verify: bool = True
    librdkafka: Annotated[
        dict[str, str | int | float | bool], BeforeValidator(_checked_options), Field(repr=False)
    ] = {}
    """More of librdkafka's own configuration, of `TUNING`."""

    @model_validator(mode="after")
    def _connection_is_whole(self) -> "KafkaKeys":
        if (self.sasl_username is None) != (self.sasl_password is None):
            raise ValueError("sasl_username and sasl_password need each other")
        if self.sasl_mechanism is not None and self.sasl_username is None:
            raise ValueError("sasl_mechanism needs sasl_username and sasl_password")
        if (self.ssl_cert is None) != (self.ssl_key is None):
            raise ValueError("ssl_cert and ssl_key need each other")
        return self


def connection_options(config: KafkaKeys, pipeline: str) -> dict[str, Any]:
    """librdkafka's keys of the connection, with the person's own before them.

    Raises ConfigError for a file that cannot be read, which librdkafka reports in the words of OpenSSL.
    """
    check_readable(config, ("ssl_ca", "ssl_cert", "ssl_key"), f"pipeline {pipeline!r}")
    ssl = config.ssl_ca or config.ssl_cert or not config.ssl_verify
    default = "sasl_ssl" if config.sasl_username else "ssl" if ssl else "plaintext"
    options = {
        "bootstrap.servers": config.brokers,
        "client.id": f"tide-relay {pipeline}",
        "security.protocol": config.security_protocol or default,
        "sasl.mechanism": (config.sasl_mechanism or "PLAIN") if config.sasl_username else None,
        "sasl.username": config.sasl_username,
        "sasl.password": config.sasl_password,
        "ssl.ca.location": config.ssl_ca,
        "ssl.certificate.location": config.ssl_cert,
        "ssl.key.location": config.ssl_key,
        "ssl.key.password": config.ssl_key_password,
        "enable.ssl.certificate.verification": config.ssl_verify,
        "allow.auto.create.topics": False,
        "log_level": 0,  # what matters comes by the error callback
    }
    return {"reconnect.backoff.max.ms": 1000} | config.librdkafka | {k: v for k, v in options.items() if v is not None}


def _acks(value: Any) -> Any:
    return "all" if value in (-1, "-1") else str(value)


class KafkaSinkConfig(KafkaKeys, SinkConfig):
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
        if value is not None:
            check_template(value, "key")
        return value

    @model_validator(mode="after")
    def _promises_hold(self) -> "KafkaSinkConfig":
        if self.transactional and self.acks != "all":
            raise ValueError("transactional needs acks all")
        if self.transactional_id is not None and not self.transactional:
            raise ValueError("transactional_id needs transactional")
        return self


def producer_options(config: KafkaSinkConfig, pipeline: str) -> dict[str, Any]:
    """librdkafka's keys of the producer."""
    # No record times out on its own: a later one of the same key could then be delivered before it.
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


def transactional_id(config: KafkaSinkConfig, pipeline: str) -> str:
    return config.transactional_id or f"tide-relay.{pipeline}"


class KafkaSourceConfig(KafkaKeys, SourceConfig):
    topic: Annotated[
        Listed,
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
                raise ValueError(f"{name!r} begins with ^ and is not a valid pattern: {error}") from None
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
