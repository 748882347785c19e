"""A Kafka broker for tests (`kafka_broker.py` says of what kind), and what tests ask it by themselves."""

import json
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from relay.local.server_process import ServerProcess
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
USER = "tide"
_NOT_YET = {
    "_DESTROY_BROKER",
    "NOT_LEADER_FOR_PARTITION",
    "LEADER_NOT_AVAILABLE",
    "UNKNOWN_TOPIC_OR_PART",
    "_UNKNOWN_PARTITION",
}


class KafkaRecord(NamedTuple):
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class KafkaServer(ServerProcess):
    """Without credentials unless `secured`. What it confirmed outlives `kill` then `start`."""

    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL
    replicas = 1

    def __init__(
        self,
        data_dir: Path,
        *,
        secured: bool = False,
        certificate: tuple[str, str] | None = None,
        auto_create: bool = False,
        topic_ids: bool = True,
        offset_metadata: bool = True,
    ) -> None:
        super().__init__(data_dir)
        self._secured = secured
        self._certificate = certificate
        self._auto_create = auto_create
        self._topic_ids = topic_ids
        self._offset_metadata = offset_metadata
        self.advertised_port: int | None = None
        """Where clients are told to connect, if that is not the server's own port; from the next start on."""

    @property
    def url(self) -> str:
        """What goes into `brokers`."""
        return f"127.0.0.1:{self.port}"

    @property
    def access(self) -> dict[str, Any]:
        """librdkafka's keys to get in."""
        access: dict[str, Any] = {"bootstrap.servers": self.url, "log_level": 0}
        if self._secured:
            access |= {"sasl.mechanism": "PLAIN", "sasl.username": USER, "sasl.password": self.password}
        if self._certificate:
            access["ssl.ca.location"] = self._certificate[0]
        protocol = ("SASL_" if self._secured else "") + ("SSL" if self._certificate else "PLAINTEXT")
        return access | {"security.protocol": protocol}

    def prepare(self) -> tuple[Sequence[str], dict[str, Any]]:
        settings = {
            "port": self.port,
            "advertised_port": self.advertised_port or self.port,
            "journal": str(self.data_dir / "journal"),
            "users": {USER: self.password} if self._secured else {},
            "certificate": self._certificate,
            "auto_create": self._auto_create,
            "topic_ids": self._topic_ids,
            "offset_metadata": self._offset_metadata,
        }
        path = self.data_dir / "settings.json"
        path.write_text(json.dumps(settings))
        return [sys.executable, "-m", "tests.services.kafka_broker", str(path)], {"cwd": ROOT}

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def create_topic(self, name: str, partitions: int = 1, **config: str) -> None:
        topic = NewTopic(
            name, partitions, self.replicas, config={key.replace("_", "."): value for key, value in config.items()}
        )
        admin = AdminClient(self.access)  # when it goes, so do its answers
        admin.create_topics([topic], operation_timeout=30)[name].result(30)
        self._wait_for(name, partitions)

    def delete_topic(self, name: str) -> None:
        admin = AdminClient(self.access)
        admin.delete_topics([name], operation_timeout=10)[name].result(10)
        wait_until(lambda: name not in admin.list_topics(timeout=10).topics, what=f"topic {name!r} is gone")

    def widen_topic(self, name: str, partitions: int) -> None:
        admin = AdminClient(self.access)
        admin.create_partitions([NewPartitions(name, partitions)], operation_timeout=10)[name].result(10)
        self._wait_for(name, partitions)

    def _wait_for(self, topic: str, partitions: int) -> None:
        """Until each partition of a topic answers: the broker serves it a moment after the topic was created."""
        asked = [TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)]
        reader = Consumer(self.access | {"group.id": "none"})

        def answered() -> bool:
            try:
                return all(found.error is None for found in reader.offsets_for_times(asked, timeout=10))
            except KafkaException as error:
                if error.args[0].name() not in _NOT_YET:
                    raise
                return False

        wait_until(answered, what=f"topic {topic!r} is served")
        reader.close()

    def trim(self, topic: str, partition: int, offset: int) -> None:
        """As retention does it: nothing below the offset can be read any more."""
        admin = AdminClient(self.access)
        for future in admin.delete_records([TopicPartition(topic, partition, offset)]).values():
            future.result(10)

    def committed(self, group: str, topic: str, partition: int = 0) -> tuple[int, str]:
        """Offset and metadata that a group has committed; a negative offset for none."""
        reader = Consumer(self.access | {"group.id": group})
        try:
            (found,) = reader.committed([TopicPartition(topic, partition)], timeout=10)
            return found.offset, found.metadata or ""
        finally:
            reader.close()

    def read_all(
        self, topic: str, isolation: Literal["read_committed", "read_uncommitted"] = "read_committed"
    ) -> list[KafkaRecord]:
        """Everything that a consumer finds in the topic now, each partition in order, partition after partition."""
        options: dict[str, Any] = {"group.id": "read-all", "isolation.level": isolation, "enable.partition.eof": True}
        options |= {"enable.auto.commit": False, "auto.offset.reset": "error", "fetch.wait.max.ms": 5}
        reader = Consumer(self.access | options)
        try:
            partitions = sorted(reader.list_topics(topic, timeout=10).topics[topic].partitions)
            starts = [TopicPartition(topic, number) for number in partitions]
            for start in starts:
                start.offset = wait_until(partial(_first_offset, reader, start), 10, f"{topic} has its leaders")[0]
            reader.assign(starts)
            found: list[KafkaRecord] = []
            ended: set[int | None] = set()
            while len(ended) < len(partitions):
                for message in reader.consume(1000, timeout=0.05):
                    error = message.error()
                    if error is None:
                        found.append(_record(message))
                    elif error.code() == KafkaError._PARTITION_EOF:
                        ended.add(message.partition())
                    else:
                        raise AssertionError(f"reading {topic!r}: {error}")
            return sorted(found, key=lambda record: record[:2])
        finally:
            reader.close()


def _first_offset(reader: Consumer, partition: TopicPartition) -> tuple[int] | None:
    """None while the partition of a topic that was made a moment ago has no leader, as far as the client knows."""
    try:
        return (reader.get_watermark_offsets(partition, timeout=10)[0],)
    except KafkaException as error:
        if error.args[0].name() not in _NOT_YET:
            raise
        return None


def _record(message: Any) -> KafkaRecord:
    return KafkaRecord(message.partition(), message.offset(), message.key(), message.value(), message.headers() or [])
