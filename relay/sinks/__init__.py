"""The sinks by `sink_type`. Adding one: a file here, a line in `SINKS`, an extra, a contract test, a README row."""

import pkgutil
from typing import cast

from relay.errors import ConfigError
from relay.sinks.base import Features, Sink, SinkConfig

__all__ = ["SINKS", "Features", "Sink", "SinkConfig", "sink_class"]

SINKS = {
    "file": "relay.sinks.file:FileSink",
    "inbox": "relay.sinks.inbox:InboxSink",
    "kafka": "relay.sinks.kafka:KafkaSink",
    "memory": "relay.sinks.memory:MemorySink",
    "nats": "relay.sinks.nats:NatsSink",
    "rabbitmq": "relay.sinks.rabbitmq:RabbitmqSink",
    "object_storage": "relay.sinks.object_storage:ObjectStorageSink",
    "redis": "relay.sinks.redis:RedisSink",
    "sqs": "relay.sinks.sqs:SqsSink",
    "stdout": "relay.sinks.stdout:StdoutSink",
    "webhook": "relay.sinks.webhook:WebhookSink",
}


def sink_class(sink_type: str) -> type[Sink]:
    """The class behind a `sink_type`. Importing it needs no client library: `open` does that.

    Raises ConfigError, listing the known types, for an unknown one.
    """
    if sink_type not in SINKS:
        raise ConfigError(f"unknown sink_type {sink_type!r}; known: {', '.join(sorted(SINKS))}")
    return cast(type[Sink], pkgutil.resolve_name(SINKS[sink_type]))
