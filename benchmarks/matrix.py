"""Which sinks and sources are measured, with how many messages and in what batches.

A backlog is such that a round takes about two seconds: long against the start of a drain, short enough for many rounds.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from benchmarks.backends.aws import BucketDestination, SqsDestination
from benchmarks.backends.base import Destination
from benchmarks.backends.inbox import InboxDestination
from benchmarks.backends.kafka import KafkaDestination, KafkaOrigin
from benchmarks.backends.nats_jetstream import NatsDestination, NatsOrigin
from benchmarks.backends.rabbitmq import RabbitmqDestination
from benchmarks.backends.redis_streams import RedisDestination, RedisOrigin
from benchmarks.backends.webhook import WebhookDestination
from benchmarks.forward import Benchmark, to_sink
from benchmarks.reverse import from_source
from benchmarks.stack import Database, Stack

Made = AbstractContextManager[Destination]


@contextmanager
def _remote_inbox(stack: Stack, _database: Database) -> Iterator[Destination]:
    with stack.database("remote") as remote:
        yield InboxDestination(remote.session, remote.url)


SINKS: Mapping[str, Benchmark] = {
    "nats": to_sink("NATS", 60_000, (1000, 100), lambda s, _: nullcontext(NatsDestination(s.nats.url))),
    "kafka": to_sink("Kafka", 150_000, (1000, 100), lambda s, _: nullcontext(KafkaDestination(s.kafka)), plain=True),
    "redis": to_sink("Redis", 60_000, (1000, 100), lambda s, _: nullcontext(RedisDestination(s.redis.url))),
    "rabbitmq": to_sink("RabbitMQ", 20_000, (1000,), lambda s, _: nullcontext(RabbitmqDestination(s.rabbitmq.url))),
    "sqs": to_sink("SQS (moto)", 2_000, (1000,), lambda s, _: nullcontext(SqsDestination(s.moto))),
    "webhook": to_sink(
        "webhook", 3_000, (1000,), lambda s, _: nullcontext(WebhookDestination(s.receiver, arrays=False))
    ),
    "webhook-arrays": to_sink(
        "webhook, JSON arrays", 100_000, (1000,), lambda s, _: nullcontext(WebhookDestination(s.receiver, arrays=True))
    ),
    "inbox-remote": to_sink("inbox in another database", 50_000, (1000, 100), _remote_inbox),
    "object-storage": to_sink("S3 (moto)", 60_000, (1000,), lambda s, _: nullcontext(BucketDestination(s.moto))),
}

SOURCES: Mapping[str, Benchmark] = {
    "from-kafka": from_source("Kafka", 60_000, (1000, 100), lambda s: nullcontext(KafkaOrigin(s.kafka, "events"))),
    "from-nats": from_source("NATS", 40_000, (1000, 100), lambda s: nullcontext(NatsOrigin(s.nats.url, "events"))),
    "from-redis": from_source("Redis", 50_000, (1000, 100), lambda s: nullcontext(RedisOrigin(s.redis.url, "events"))),
}
