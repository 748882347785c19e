"""Kafka: librdkafka's mock cluster, in a process of its own, by confluent-kafka.

It answers without storing anything, faster than any real cluster, so that what a client costs shows. Of a partition it
keeps 5 MB, compressed.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from benchmarks.backends.base import Destination, Origin, Write
from benchmarks.bare import Batches, headers

# What the relay sets too; with librdkafka's own defaults nothing is compressed.
_PRODUCER = {"enable.idempotence": True, "compression.type": "lz4", "delivery.report.only.error": True}
_STOP_SECONDS = 10
_WAIT_SECONDS = 10.0


@contextmanager
def cluster() -> Iterator[str]:
    """A mock cluster of one broker, which makes topics of four partitions as they are asked for; yields its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2], text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.communicate(timeout=_STOP_SECONDS)  # the end of its input ends it


class KafkaDestination(Destination):
    def __init__(self, brokers: str) -> None:
        self._brokers = brokers

    def config(self, place: str, backlog: int) -> dict[str, object]:  # noqa: ARG002
        return {"sink_type": "kafka", "brokers": self._brokers, "topic": place}

    def deliver(self, batches: Batches, place: str, backlog: int) -> None:  # noqa: ARG002
        self._deliver(batches, place, with_headers=True)

    def deliver_bodies(self, batches: Batches, place: str) -> None:
        self._deliver(batches, place, with_headers=False)

    def count(self, place: str) -> int:
        return sum(high for _, high in watermarks(self._brokers, place).values())

    def make(self, place: str) -> None:
        """The mock cluster makes a topic when a producer asks for it, which ours does not do by itself."""
        Producer({"bootstrap.servers": self._brokers}).list_topics(place, timeout=_WAIT_SECONDS)

    def _deliver(self, batches: Batches, place: str, *, with_headers: bool) -> None:
        producer = Producer({"bootstrap.servers": self._brokers, **_PRODUCER})
        for rows in batches:
            if with_headers:
                for row in rows:
                    producer.produce(place, row[1], headers={**headers(row)}, on_delivery=_raise)
            else:
                for row in rows:
                    producer.produce(place, row[1], on_delivery=_raise)
            if producer.flush(_WAIT_SECONDS):
                raise TimeoutError("the mock cluster did not confirm a batch")


class KafkaOrigin(Origin):
    def __init__(self, brokers: str, topic: str) -> None:
        self._brokers = brokers
        self._topic = topic

    def fill(self, payload: str, headers: Sequence[dict[str, str]]) -> None:
        producer = Producer({"bootstrap.servers": self._brokers, "queue.buffering.max.messages": 0, **_PRODUCER})
        for each in headers:
            producer.produce(self._topic, payload, headers={**each}, on_delivery=_raise)
        producer.flush(_WAIT_SECONDS)
        kept = sum(high - low for low, high in watermarks(self._brokers, self._topic).values())
        if kept != len(headers):
            raise RuntimeError(f"the mock cluster kept {kept} of {len(headers)} messages: fewer would fit")

    def config(self, place: str) -> dict[str, object]:
        return {"source_type": "kafka", "brokers": self._brokers, "topic": self._topic, "group_id": place}

    def receive(self, place: str, batch: int, messages: int, write: Write) -> None:
        consumer = Consumer({"bootstrap.servers": self._brokers, "group.id": place, "enable.auto.commit": False})
        partitions = watermarks(self._brokers, self._topic)
        consumer.assign([TopicPartition(self._topic, number, low) for number, (low, _) in partitions.items()])
        while messages > 0:
            batch_of = consumer.consume(batch, _WAIT_SECONDS)
            if not batch_of:
                raise TimeoutError("the mock cluster sent nothing more")
            write([_row(message) for message in batch_of])
            consumer.commit()
            messages -= len(batch_of)
        consumer.close()


def watermarks(brokers: str, topic: str) -> dict[int, tuple[int, int]]:
    """The first offset and the next one of each partition."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "watermarks"})
    try:
        partitions = consumer.list_topics(topic, timeout=_WAIT_SECONDS).topics[topic].partitions
        return {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_WAIT_SECONDS)
            for number in partitions
        }
    finally:
        consumer.close()


def _row(message: Any) -> tuple[str, str, None, str, str]:
    if message.error():
        raise KafkaException(message.error())
    topic = message.topic()
    found = {name: value.decode() for name, value in message.headers()}
    event_id = f"{topic}/{message.partition()}/{message.offset()}"
    return event_id, topic, None, message.value().decode(), json.dumps(found)


def _raise(error: Any, _message: Any) -> None:
    raise KafkaException(error)


def _main() -> None:
    mock = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0})
    [broker] = mock.list_topics(timeout=_WAIT_SECONDS).brokers.values()
    print(f"{broker.host}:{broker.port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _main()
