"""Kafka for the suite, and for what is true of the Kafka sink alone."""

import uuid
from contextlib import AbstractContextManager
from typing import Any, Literal

from relay.backends.kafka.sink import KafkaSink
from relay.models import Record
from tests.backends.harness import Harness, Seen
from tests.services.apache_kafka import ApacheKafka
from tests.services.halt import halted
from tests.services.kafka import KafkaRecord, KafkaServer


class KafkaHarness(Harness):
    kind = KafkaSink

    def __init__(self, server: KafkaServer, *, partitions: int = 1, **options: Any) -> None:
        self.server = server
        self.topic = self.subject = f"contract-{uuid.uuid4().hex[:8]}"
        self._options = options
        self.restarts = 1 if isinstance(server, ApacheKafka) else 2
        server.create_topic(self.topic, partitions)

    def config(self) -> dict[str, Any]:
        keys = {
            "bootstrap.servers": "brokers", "security.protocol": "security_protocol", "sasl.username": "sasl_username",
            "sasl.password": "sasl_password", "ssl.ca.location": "ssl_ca",
        }  # fmt: skip
        access = {keys[key]: value for key, value in self.server.access.items() if key in keys}
        return access | {"security_protocol": access["security_protocol"].lower()} | self._options

    def read_all(self) -> list[Seen]:
        return [
            Seen(
                b"null" if record.value is None else record.value,
                None if record.key is None else record.key.decode(),
                {name: (value or b"").decode() for name, value in record.headers},
            )
            for record in self.stored()
        ]

    def stored(
        self, topic: str = "", isolation: Literal["read_committed", "read_uncommitted"] = "read_committed"
    ) -> list[KafkaRecord]:
        return self.server.read_all(topic or self.topic, isolation)

    def stall(self) -> AbstractContextManager[None]:
        return halted(self.server.pid)

    def stop(self) -> None:
        self.server.kill()

    def start(self) -> None:
        self.server.start()

    def wrong_credentials(self) -> dict[str, Any]:
        return {"sasl_username": "tide", "sasl_password": "wrong-password"}

    def record(self, number: int, *, topic: str = "", key: str | None = None, body: bytes = b"1") -> Record:
        return Record(number, f"orders:{number}", topic or self.topic, key, body, {})

    def records(self, first: int, count: int, **fields: Any) -> list[Record]:
        return [self.record(number, **fields) for number in range(first, first + count)]
