"""Kafka for the source suite, and for what is true of the Kafka source alone."""

import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from confluent_kafka import Producer

from relay.backends.common.deadline import in_ms
from relay.backends.kafka.source import KafkaSource
from relay.backends.kafka.topic_ids import topic_ids
from tests.backends.kafka.harness import KafkaHarness
from tests.backends.source_harness import MissingSource, Sent, SourceHarness


class KafkaSourceHarness(SourceHarness):
    kind = KafkaSource

    def __init__(self, kafka: KafkaHarness) -> None:
        self.kafka = kafka
        self.topic = kafka.topic
        self.restarts = kafka.restarts

    def config(self) -> dict[str, Any]:
        return self.kafka.config() | {"topic": self.topic}

    def send(self, messages: Sequence[Sent]) -> None:
        self.send_to(self.topic, messages)

    def divide(self) -> None:
        self.kafka.server.widen_topic(self.topic, 2)

    def send_apart(self, messages: Sequence[Sent]) -> None:
        for partition in range(2):
            self.send_to(self.topic, messages[partition::2], partition)

    def send_to(self, topic: str, messages: Sequence[Sent], partition: int = 0, **options: Any) -> None:
        # Not compressed: the limits of what is held count bytes on the wire.
        producer = Producer(self.kafka.server.access | options)
        for message in messages:
            producer.produce(topic, message.body, message.key, partition, headers=list(message.headers.items()))
            producer.poll(0)
        assert producer.flush(30) == 0

    def send_in_transaction(self, body: bytes, *, commit: bool) -> None:
        producer = Producer(self.kafka.server.access | {"transactional.id": uuid.uuid4().hex})
        producer.init_transactions(10)
        producer.begin_transaction()
        producer.produce(self.topic, body)
        assert producer.flush(10) == 0
        if commit:
            producer.commit_transaction(10)
        else:
            producer.abort_transaction(10)

    def topic_id(self) -> str:
        """Empty while the broker does not know the topic yet, or any more."""
        return topic_ids(self.kafka.server.access, [self.topic], in_ms(10_000)).get(self.topic, "")

    def stall(self) -> AbstractContextManager[object]:
        return self.kafka.stall()

    def stop(self) -> None:
        self.kafka.stop()

    def start(self) -> None:
        self.kafka.start()

    def wrong_credentials(self) -> dict[str, Any]:
        return self.kafka.wrong_credentials()

    def missing_source(self) -> MissingSource:
        name = f"missing-{self.topic}"
        return MissingSource(name, {"topic": name}, ("kafka-topics.sh --create",))
