"""The sources by `source_type`. Adding one: a file here, a line in `SOURCES`, an extra, a contract test, a page."""

import pkgutil
from typing import cast

from relay.errors import ConfigError
from relay.sources.base import Source, SourceConfig, SourceFeatures

__all__ = ["SOURCES", "Source", "SourceConfig", "SourceFeatures", "source_class"]

SOURCES: dict[str, str] = {
    "file": "relay.sources.file:FileSource",
    "kafka": "relay.sources.kafka:KafkaSource",
    "memory": "relay.sources.memory:MemorySource",
    "nats": "relay.sources.nats:NatsSource",
    "outbox": "relay.sources.outbox:OutboxSource",
    "rabbitmq": "relay.sources.rabbitmq:RabbitmqSource",
    "redis": "relay.sources.redis:RedisSource",
    "sqs": "relay.sources.sqs:SqsSource",
    "stdin": "relay.sources.stdin:StdinSource",
    "webhook": "relay.sources.webhook:WebhookSource",
}


def source_class(source_type: str) -> type[Source]:
    """The class behind a `source_type`. Importing it needs no client library: `open` does that.

    Raises ConfigError, listing the known types, for an unknown one.
    """
    if source_type not in SOURCES:
        raise ConfigError(f"unknown source_type {source_type!r}; known: {', '.join(sorted(SOURCES))}")
    return cast(type[Source], pkgutil.resolve_name(SOURCES[source_type]))
