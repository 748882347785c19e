"""The sinks by `sink_type`. Adding one: a file here, a line in `SINKS`, an extra, a contract test, a README row."""

import pkgutil
from typing import cast

from relay.backends.sink import Features, Sink, SinkConfig
from relay.errors import ConfigError

__all__ = ["SINKS", "Features", "Sink", "SinkConfig", "sink_class"]

SINKS = {
    "file": "relay.backends.file.sink:FileSink",
    "inbox": "relay.backends.postgresql.sink:InboxSink",
    "kafka": "relay.backends.kafka.sink:KafkaSink",
    "memory": "relay.backends.memory.sink:MemorySink",
    "nats": "relay.backends.nats.sink:NatsSink",
    "rabbitmq": "relay.backends.rabbitmq.sink:RabbitmqSink",
    "object_storage": "relay.backends.object_storage.sink:ObjectStorageSink",
    "redis": "relay.backends.redis.sink:RedisSink",
    "sqs": "relay.backends.sqs.sink:SqsSink",
    "stdout": "relay.backends.stdio.sink:StdoutSink",
    "webhook": "relay.backends.webhook.sink:WebhookSink",
}


def sink_class(sink_type: str) -> type[Sink]:
    """The class behind a `sink_type`. Importing it needs no client library: `open` does that.

    Raises ConfigError, listing the known types, for an unknown one.
    """
    if sink_type not in SINKS:
        raise ConfigError(f"unknown sink_type {sink_type!r}; known: {', '.join(sorted(SINKS))}")
    return cast(type[Sink], pkgutil.resolve_name(SINKS[sink_type]))
