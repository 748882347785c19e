"""One open connection of the sink: publishes batches, each as one transaction if so configured."""

from collections.abc import Sequence
from dataclasses import replace

from relay.backends.common.batch import Batch
from relay.backends.kafka.config import KafkaSinkConfig
from relay.backends.kafka.producer import KafkaProducer
from relay.backends.kafka.topics import Topics
from relay.backends.kafka.transactions import Transactions
from relay.models import Drain, Failure, Progress, Record


class KafkaPublisher:
    """Connects when made: raises NotConnected or ConfigError. `close` may come from another thread at any time.

    After an error, make a new one.
    """

    def __init__(self, config: KafkaSinkConfig, pipeline: str, where: str, deadline: float) -> None:
        self._where = where
        self.producer = KafkaProducer(config, pipeline, where, deadline)
        self.topics = Topics(config, where, self.producer)
        self.transactions = Transactions(config, pipeline, where, self.producer) if config.transactional else None

    def goes_on(self, drain: Drain) -> bool:
        """Whether this connection may serve the drain without asking the cluster anything."""
        return self.transactions is None or self.transactions.goes_on(drain)

    @property
    def caution(self) -> str:
        return self.transactions.caution if self.transactions else ""

    def begin(self, drain: Drain, offset_id: int, deadline: float) -> Progress:
        if self.transactions is None:
            return Progress(offset_id)
        return self.transactions.begin(drain, offset_id, deadline)

    def publish(self, records: Sequence[Record], deadline: float) -> list[Failure]:
        """What was not delivered. Raises NotConnected when nothing was."""
        if not records:
            return []
        self.producer.forget_troubles()
        batch = Batch(len(records))
        ready: Sequence[int] = range(len(records))
        topics = {record.subject for record in records}
        problems = {} if topics <= self.producer.topics else self.topics.problems(topics, deadline)
        if problems:
            batch.add(replace(problems[r.subject], index=i) for i, r in enumerate(records) if r.subject in problems)
            if batch.blocked_by is not None:
                self.producer.missing_topic = records[batch.blocked_by].subject
                batch.hold_back_from(batch.blocked_by)
            ready = [index for index in ready if index not in batch.failures]
        if ready:
            deliver = self._deliver if self.transactions is None else self.transactions.deliver
            batch.add(deliver(records, ready, deadline).values())
        return batch.result_unless_stuck(self._where)

    def close(self) -> None:
        self.producer.close()

    def _deliver(self, records: Sequence[Record], indexes: Sequence[int], deadline: float) -> dict[int, Failure]:
        failures = self._sent(records, indexes, deadline)
        # Refused among others, although it is small: the topic takes less than a batch. Which one is too large shows
        # when they are sent one by one.
        for index in sorted(failures):
            if failures[index].code == "too_large" and self.producer.fits_in_a_batch(records[index]):
                del failures[index]
                failures |= self._sent(records, (index,), deadline)
        return failures

    def _sent(self, records: Sequence[Record], indexes: Sequence[int], deadline: float) -> dict[int, Failure]:
        """Sends these records and waits for all. Raises NotConnected when time is over."""
        refused = self.producer.produce(records, indexes, deadline)
        self.producer.wait(deadline)
        if self.producer.errors:
            refused |= self.producer.judged(records)
        return refused
