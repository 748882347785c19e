"""The backends by type name. Each line is the whole registration of a sink or a source.

A class is imported when its type is first asked for; importing it needs no client library, because `open` does that.
"""

import pkgutil

from relay.backends.sink import Sink
from relay.backends.source import Source
from relay.errors import ConfigError

SINKS = {
    "file": "relay.backends.file.sink:FileSink",
    "inbox": "relay.backends.postgresql.sink:InboxSink",
    "kafka": "relay.backends.kafka.sink:KafkaSink",
    "memory": "relay.backends.memory.sink:MemorySink",
    "nats": "relay.backends.nats.sink:NatsSink",
    "object_storage": "relay.backends.object_storage.sink:ObjectStorageSink",
    "rabbitmq": "relay.backends.rabbitmq.sink:RabbitmqSink",
    "redis": "relay.backends.redis.sink:RedisSink",
    "sqs": "relay.backends.sqs.sink:SqsSink",
    "stdout": "relay.backends.stdio.sink:StdoutSink",
    "webhook": "relay.backends.webhook.sink:WebhookSink",
}
"""`sink_type` -> "module:Class"."""

SOURCES = {
    "file": "relay.backends.file.source:FileSource",
    "kafka": "relay.backends.kafka.source:KafkaSource",
    "memory": "relay.backends.memory.source:MemorySource",
    "nats": "relay.backends.nats.source:NatsSource",
    "outbox": "relay.backends.postgresql.source:OutboxSource",
    "rabbitmq": "relay.backends.rabbitmq.source:RabbitmqSource",
    "redis": "relay.backends.redis.source:RedisSource",
    "sqs": "relay.backends.sqs.source:SqsSource",
    "stdin": "relay.backends.stdio.source:StdinSource",
    "webhook": "relay.backends.webhook.source:WebhookSource",
}
"""`source_type` -> "module:Class"."""


def sink_class(sink_type: str) -> type[Sink]:
    """Raises ConfigError, listing the known types, for an unknown one."""
    if sink_type not in SINKS:
        raise ConfigError(f"unknown sink_type {sink_type!r}; known: {', '.join(sorted(SINKS))}")
    found: type[Sink] = pkgutil.resolve_name(SINKS[sink_type])
    return found


def source_class(source_type: str) -> type[Source]:
    """Raises ConfigError, listing the known types, for an unknown one."""
    if source_type not in SOURCES:
        raise ConfigError(f"unknown source_type {source_type!r}; known: {', '.join(sorted(SOURCES))}")
    found: type[Source] = pkgutil.resolve_name(SOURCES[source_type])
    return found
