"""The sources by `source_type`. Adding one: a file here, a line in `SOURCES`, an extra, a contract test, a page."""

import pkgutil
from typing import cast

from relay.backends.source import Source, SourceConfig, SourceFeatures
from relay.errors import ConfigError

__all__ = ["SOURCES", "Source", "SourceConfig", "SourceFeatures", "source_class"]

SOURCES: dict[str, str] = {
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


def source_class(source_type: str) -> type[Source]:
    """The class behind a `source_type`. Importing it needs no client library: `open` does that.

    Raises ConfigError, listing the known types, for an unknown one.
    """
    if source_type not in SOURCES:
        raise ConfigError(f"unknown source_type {source_type!r}; known: {', '.join(sorted(SOURCES))}")
    return cast(type[Source], pkgutil.resolve_name(SOURCES[source_type]))
