"""One producer, and what it knows of its topics. After an error, make a new one."""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from relay.backends.common.batch import Batch
from relay.backends.common.deadline import is_over, left
from relay.backends.kafka.client import Troubles, connect
from relay.backends.kafka.config import KafkaSinkConfig, producer_options
from relay.backends.kafka.errors import ERRORS
from relay.errors import NotConnected
from relay.masking import mask
from relay.models import Drain, Failure, Progress, Record
from relay.wire.templates import RecordTemplate

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_TOMBSTONE = b"null"
_CLOSE_SECONDS = 1.0


class KafkaConnection:
    """Connects when made: raises NotConnected or ConfigError. `close` may come from another thread at any time."""

    def __init__(self, config: KafkaSinkConfig, pipeline: str, where: str, deadline: float) -> None:
        self._config = config
        self._where = where
        self._options = producer_options(config, pipeline)
        self._key = RecordTemplate(config.key, "key").render if config.key is not None else None
        self._topics: set[str] = set()
        self._errors: dict[int, KafkaError] = {}
        self._reporters: list[partial[None]] = []
        self._troubles = Troubles()
        self._producer: Any = connect(Producer, self._options, where, deadline, self._troubles)
        self.missing_topic: str | None = None
        """What made `publish` fail, if an operator must see to a topic."""

    def goes_on(self, drain: Drain) -> bool:  # noqa: ARG002
        """Whether this connection may serve the drain without asking the cluster anything."""
        return True

    def begin(self, drain: Drain, offset_id: int, deadline: float) -> Progress:  # noqa: ARG002
        return Progress(offset_id)

    def publish(self, records: Sequence[Record], deadline: float) -> list[Failure]:
        """What was not delivered. Raises NotConnected when nothing was."""
        if not records:
            return []
        self._troubles.forget()
        batch = Batch(len(records))
        ready: Sequence[int] = range(len(records))
        topics = {record.subject for record in records}
        problems = {} if topics <= self._topics else self._problems(topics, deadline)
        if problems:
            batch.add(replace(problems[r.subject], index=i) for i, r in enumerate(records) if r.subject in problems)
            if batch.blocked_by is not None:
                self.missing_topic = records[batch.blocked_by].subject
                batch.hold_back_from(batch.blocked_by)
            ready = [index for index in ready if index not in batch.failures]
        if ready:
            batch.add(self._deliver(records, ready, deadline).values())
        return batch.result_unless_stuck(self._where)

    def check_topic(self, topic: str, deadline: float) -> Failure | None:
        """Why nothing can be sent there now, or None. Makes the topic where configured so. Raises NotConnected."""
        try:
            found = self._producer.list_topics(topic, timeout=left(deadline)).topics[topic]
            if found.error is None and found.partitions:
                self._topics.add(topic)
                return None
            code = "unavailable" if found.error is None else ERRORS.verdict(found.error).code
            if code != "no_topic":
                return Failure(0, False, code, f"topic {topic!r}: {found.error or 'it has no partitions'}")
            if not self._config.create_topic:
                advice = f"kafka-topics.sh --create --topic {topic} --bootstrap-server {self._config.brokers}"
                reason = f"topic {topic!r} does not exist: create it ({advice}), or set create_topic"
                return Failure(0, False, "no_topic", mask(reason))
            return self._create(topic, deadline)
        except KafkaException as error:
            raise ERRORS.lost(error.args[0], self._where) from None

    def close(self) -> None:
        """Nothing that is still in the producer is sent any more."""
        producer, self._producer = self._producer, _Closed(self._where)
        self._reporters = []  # they hold this object, and it the producer
        if not isinstance(producer, _Closed):
            # It may have ended by itself, with a fatal error that was told before.
            with contextlib.suppress(KafkaException):
                producer.purge()
                producer.flush(_CLOSE_SECONDS)

    def _deliver(self, records: Sequence[Record], indexes: Sequence[int], deadline: float) -> dict[int, Failure]:
        failures = self._sent(records, indexes, deadline)
        # Refused among others, although it is small: the topic takes less than a batch. Which one is too large shows
        # when they are sent one by one.
        for index in sorted(failures):
            if failures[index].code == "too_large" and self._fits_in_a_batch(records[index]):
                del failures[index]
                failures |= self._sent(records, (index,), deadline)
        return failures

    def _sent(self, records: Sequence[Record], indexes: Sequence[int], deadline: float) -> dict[int, Failure]:
        """Sends these records and waits for all. Raises NotConnected when time is over."""
        refused = self._produce(records, indexes, deadline)
        self._wait(deadline)
        if self._errors:
            refused |= self._judged(records)
        return refused

    def _produce(self, records: Sequence[Record], indexes: Sequence[int], deadline: float) -> dict[int, Failure]:
        """Hands records to the producer; those that it refuses come back. What becomes of the others: `_errors`."""
        produce, render, reporters = self._producer.produce, self._key, self._reporters
        reporters += [partial(self._report, index) for index in range(len(reporters), len(records))]
        refused: dict[int, Failure] = {}
        for index in indexes:
            record = records[index]
            key = record.key if render is None else render(record) or None
            body = None if record.body == _TOMBSTONE and key is not None else record.body
            try:
                produce(record.subject, body, key, on_delivery=reporters[index], headers=record.headers)
            except BufferError:
                self._wait(deadline)
                produce(record.subject, body, key, on_delivery=reporters[index], headers=record.headers)
            except KafkaException as error:
                refused[index] = self._failure(index, record, error.args[0])
            except UnicodeEncodeError:
                reason = "the key or a header has text that UTF-8 does not have"
                refused[index] = Failure(index, True, "bad_text", reason)
        return refused

    def _wait(self, deadline: float) -> None:
        """Until every record was delivered or refused."""
        try:
            unfinished = self._producer.flush(left(deadline))
        except KafkaException as error:
            raise ERRORS.lost(error.args[0], self._where) from None
        if isinstance(self._producer, _Closed):
            raise NotConnected(f"{self._where}: closed", code="closed")
        if unfinished:
            self.close()
            late = f"not everything was acknowledged within {self._config.timeout_ms} ms"
            known = self._troubles.gravest
            if known is None:
                raise NotConnected(f"{self._where}: {late}", code="timeout")
            raise ERRORS.lost(known, f"{self._where}: {late}")

    def _report(self, index: int, error: KafkaError | None, _message: Any) -> None:
        if error is not None:
            self._errors[index] = error

    def _judged(self, records: Sequence[Record]) -> dict[int, Failure]:
        errors = dict(self._errors)
        self._errors.clear()
        return {index: self._failure(index, records[index], error) for index, error in errors.items()}

    def _failure(self, index: int, record: Record, error: KafkaError) -> Failure:
        permanent, code = ERRORS.verdict(error)
        if code == "no_topic":
            self._topics.discard(record.subject)
            self.missing_topic = record.subject
        return Failure(index, permanent, code, mask(f"topic {record.subject!r}: {error.str()}"))

    def _fits_in_a_batch(self, record: Record) -> bool:
        return len(record.body) < int(self._options["batch.size"])

    def _problems(self, topics: set[str], deadline: float) -> dict[str, Failure]:
        """By topic, of those that are not known yet."""
        found = {}
        for topic in topics - self._topics:
            bad = bad_topic(topic)
            problem = Failure(0, True, "bad_topic", bad) if bad else self.check_topic(topic, deadline)
            if problem is not None:
                found[topic] = problem
        return found

    def _create(self, topic: str, deadline: float) -> Failure | None:
        config = self._config
        wanted = NewTopic(topic, config.partitions or -1, config.replication_factor or -1)
        admin = AdminClient(self._options)
        try:
            admin.create_topics([wanted], operation_timeout=left(deadline))[topic].result(left(deadline))
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                reason = f"topic {topic!r} does not exist, and create_topic failed: {error.args[0].str()}"
                return Failure(0, False, ERRORS.verdict(error.args[0]).code, mask(reason))
        # The broker that we ask next may not have heard of it yet.
        while not is_over(deadline):
            if self._producer.list_topics(topic, timeout=left(deadline)).topics[topic].partitions:
                self._topics.add(topic)
                return None
            self._producer.poll(0.05)
        return Failure(0, False, "unavailable", f"topic {topic!r} was created and has no partitions yet")


class _Closed:
    """Where the producer was."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __getattr__(self, name: str) -> Any:
        raise NotConnected(f"{self._where}: closed", code="closed")


@lru_cache(maxsize=4096)
def bad_topic(topic: str) -> str | None:
    """Why no topic can have this name."""
    if topic in (".", "..") or not _TOPIC.fullmatch(topic):
        return f"{topic!r} cannot be the name of a topic: 1 to 249 of A-Z, a-z, 0-9, '.', '_' and '-'"
    return None
