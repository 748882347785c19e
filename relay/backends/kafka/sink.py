"""The Kafka sink: an idempotent producer with the whole batch in flight, and every delivery confirmed.

A producer keeps a batch in order and stores none of it twice while it lives. No record of a batch times out on its own,
which would let a later record of a key overtake: when the time of a publish is over, everything that is queued or on
the way is purged together, and the producer is closed. docs/backends/kafka.md says what that leaves open;
`transactions.py` is about `transactional`, which closes it.

Which topics are needed is known only with the records. So it is `publish` that finds one missing (NotConnected,
`no_topic`), and the next `open` that says ConfigError if it is missing still.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from relay.backends.common.deadline import in_ms
from relay.backends.kafka.config import LARGEST_RECORD_BYTES, KafkaSinkConfig
from relay.backends.kafka.errors import ERRORS
from relay.backends.sink import Features, Sink
from relay.errors import ConfigError, MissingExtra, NotConnected
from relay.models import Drain, Failure, Progress, Record

if TYPE_CHECKING:
    from relay.backends.kafka.publisher import KafkaPublisher


ONE_OFFSET = "with transactional, Kafka keeps one offset for the pipeline"


class KafkaSink(Sink[KafkaSinkConfig]):
    features: ClassVar[Features] = Features(
        keeps_headers=True,
        keeps_key=True,
        largest_record_bytes=LARGEST_RECORD_BYTES,
        needs_destination=False,
        needs_credentials=True,
        cloudevents_binding="kafka",
        subject_key="topic",
        subject_aliases=("kafka_topic",),
    )
    config_model = KafkaSinkConfig
    needs_operator = ERRORS.needs_operator

    @classmethod
    def features_for(cls, config: KafkaSinkConfig) -> Features:
        return replace(cls.features, one_lane=ONE_OFFSET) if config.transactional else cls.features

    def __init__(self, config: KafkaSinkConfig, pipeline: str) -> None:
        self._config = config
        self._pipeline = pipeline
        self._where = f"pipeline {pipeline!r}: Kafka at {self._config.brokers}"
        self._connection: KafkaPublisher | None = None
        self._missing_topic: str | None = None
        self.keeps_offset = config.transactional

    def open(self) -> None:
        try:
            from relay.backends.kafka.publisher import KafkaPublisher
        except ImportError as error:
            raise MissingExtra("kafka", "kafka") from error
        self.close()
        deadline = self._deadline()
        connection = KafkaPublisher(self._config, self._pipeline, self._where, deadline)
        if self._missing_topic is not None:
            problem = connection.topics.check(self._missing_topic, deadline)
            if problem is not None:
                connection.close()
                raise ConfigError(f"{self._where}: {problem.reason}")
            self._missing_topic = None
        self._connection = connection

    def begin(self, drain: Drain, offset_id: int) -> Progress:
        if self._connection is None or not self._connection.goes_on(drain):
            self.open()
        assert self._connection is not None
        try:
            progress = self._connection.begin(drain, offset_id, self._deadline())
            self.caution = self._connection.caution
        except (NotConnected, ConfigError):
            self.close()
            raise
        return progress

    def publish(self, records: Sequence[Record]) -> list[Failure]:
        connection = self._connection
        if connection is None:
            raise NotConnected(f"{self._where}: not open", code="closed")
        try:
            return connection.publish(records, self._deadline())
        except NotConnected:
            # What is still in the producer must not arrive after what is sent again.
            connection.close()
            self._connection = None
            self._missing_topic = connection.producer.missing_topic
            raise

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _deadline(self) -> float:
        return in_ms(self._config.timeout_ms)
