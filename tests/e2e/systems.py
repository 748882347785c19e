"""For each system how messages are sent into it, and received from it into an inbox: the keys of both pipelines."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from relay.local.servers import EmbeddedRedis
from tests.services.kafka import KafkaServer
from tests.services.moto import MotoServer
from tests.services.nats import NatsServer
from tests.services.postgres import Database
from tests.services.rabbitmq import RabbitmqServer
from tests.web.api import SECRET, ApiProcess

LARGE = 1024 * 1024


@dataclass(frozen=True)
class System:
    """One way there and back."""

    sink: Mapping[str, Any]
    """The keys of the forward pipeline. In texts `{name}` stands for the name of the trip; so below."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """The keys of the reverse pipeline. Empty where the sink leads into the inbox by itself."""
    order: Literal["all", "keys", "keys and none", "none"] = "all"
    """What stays in order: everything; the messages of each key; those without a key too, among themselves; nothing."""
    raw_id: str | None = None
    """The `event_id` for raw messages by which those are known that a sink sent twice; None: the source's own is it."""
    keeps_headers: bool = True
    formats_without_key: frozenset[str] = frozenset()
    """In these the key stays behind: it is neither in the body nor beside it."""
    no_key: str = ""
    """What a message without a key has as its key when it comes back."""
    large_bytes: int = LARGE

    def configs(self, name: str, wire_format: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of the forward and of the reverse pipeline."""
        sink = _named(self.sink, name) | {"wire_format": wire_format}
        common = {"wire_format": wire_format, "max_message_bytes": 2 * LARGE, "slice_ms": 150}
        source = common | _named(self.source, name)
        if wire_format == "raw" and self.raw_id:
            source["event_id"] = self.raw_id
        return sink, source


def _named(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value.replace("{name}", name) if isinstance(value, str) else value for key, value in config.items()}


NO_KEY_BESIDE = frozenset({"raw", "debezium"})


def nats(server: NatsServer) -> System:
    access = {"url": server.url, "stream": "{name}"}
    sink = {"sink_type": "nats", "create_stream": True, **access}
    return System(sink, {"source_type": "nats", **access}, formats_without_key=NO_KEY_BESIDE)


def kafka(server: KafkaServer, *, transactional: bool = False) -> System:
    access = {"brokers": server.url, "topic": "{name}"}
    sink = {"sink_type": "kafka", "create_topic": True, "partitions": 4, "transactional": transactional, **access}
    return System(sink, {"source_type": "kafka", **access}, order="keys", raw_id="{header.relay-id}")


def redis(server: EmbeddedRedis) -> System:
    access = {"url": server.url, "stream": "{name}"}
    return System({"sink_type": "redis", **access}, {"source_type": "redis", **access}, raw_id="{header.relay-id}")


def rabbitmq(server: RabbitmqServer) -> System:
    access = {"url": server.url, "queue": "{name}", "declare": True}
    return System({"sink_type": "rabbitmq", "exchange": "{name}", **access}, {"source_type": "rabbitmq", **access})


def sqs(server: MotoServer) -> System:
    access = server.config | {"queue_url": f"{server.url}/123456789012/{{name}}", "create_queue": True}
    return System(
        {"sink_type": "sqs", "timeout_ms": 25_000, **access},
        {"source_type": "sqs", "wait_time_seconds": 1, **access},
        order="none",
        raw_id="{header.relay-id}",
        large_bytes=1_000_000,
    )


def sqs_fifo(server: MotoServer) -> System:
    standard = sqs(server)
    queue = {"queue_url": f"{standard.sink['queue_url']}.fifo"}
    sink, source = {**standard.sink, **queue}, {**standard.source, **queue}
    return replace(standard, sink=sink, source=source, order="keys and none", no_key="{name}")


def file(folder: Path) -> System:
    access = {"path": str(folder / "{name}.jsonl")}
    source = {"source_type": "file", "max_line_bytes": 2 * LARGE, **access}
    return System({"sink_type": "file", **access}, source, keeps_headers=False)


def webhook(api: ApiProcess) -> System:
    """The way back has no drain: `relay api` writes what it receives."""
    url = f"http://127.0.0.1:{api.port}/hooks/from_{{name}}"
    return System(
        {"sink_type": "webhook", "url": url, "allow_http": True, "allow_private_network": True, "timeout_ms": 25_000}
        | {"signing_secret": SECRET},
        {"source_type": "webhook", "signing_secret": SECRET, "max_body_bytes": 2 * LARGE},
        order="keys and none",
        formats_without_key=NO_KEY_BESIDE,
    )


def inbox(other: Database | None = None) -> System:
    """Of the same database, or of another."""
    elsewhere = {"postgres_url": other.url} if other else {}
    return System({"sink_type": "inbox", "inbox": "from_{name}", **elsewhere})
