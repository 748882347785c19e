"""One producer of the client: hands records over, waits for them, and says what became of them."""

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from relay.backends.common.deadline import is_over, left
from relay.backends.kafka.client import Troubles, connect
from relay.backends.kafka.config import KafkaSinkConfig, producer_options
from relay.backends.kafka.errors import ERRORS, error_text
from relay.errors import NotConnected
from relay.masking import mask
from relay.models import Failure, Record
from relay.wire.templates import RecordTemplate

_TOMBSTONE = b"null"
_CLOSE_SECONDS = 1.0
_LOOK_SECONDS = 0.1


class KafkaProducer:
    """Connects when made: raises NotConnected or ConfigError. `close` may come from another thread at any time.

    After an error, make a new one.
    """

    def __init__(self, config: KafkaSinkConfig, pipeline: str, where: str, deadline: float) -> None:
        self.options = producer_options(config, pipeline)
        self.errors: dict[int, KafkaError] = {}
        """Of records that were not delivered, by index."""
        self.topics: set[str] = set()
        """Those that are known to exist."""
        self.missing_topic: str | None = None
        """What made a publish fail, if an operator must see to a topic."""
        self._config = config
        self._where = where
        self._key = RecordTemplate(config.key, "key").render if config.key is not None else None
        self._reporters: list[partial[None]] = []
        self._troubles = Troubles()
        self.client: Any = connect(Producer, self.options, where, deadline, self._troubles)

    def produce(self, records: Sequence[Record], indexes: Sequence[int], deadline: float) -> dict[int, Failure]:
        """Hands records to the producer; those that it refuses come back. What becomes of the others: `errors`."""
        produce, render, reporters = self.client.produce, self._key, self._reporters
        reporters += [partial(self._report, index) for index in range(len(reporters), len(records))]
        refused: dict[int, Failure] = {}
        for index in indexes:
            record = records[index]
            _, _, topic, key, body, headers, _ = record
            if render is not None:
                key = render(record) or None
            value = None if body == _TOMBSTONE and key is not None else body
            try:
                produce(topic, value, key, on_delivery=reporters[index], headers=headers)
            except BufferError:
                self.wait(deadline)
                produce(topic, value, key, on_delivery=reporters[index], headers=headers)
            except KafkaException as error:
                refused[index] = self._failure(index, record, error.args[0])
            except UnicodeEncodeError:
                reason = "the key or a header has text that UTF-8 does not have"
                refused[index] = Failure(index, True, "bad_text", reason)
        return refused

    def wait(self, deadline: float) -> None:
        """Until every record was delivered or refused; in a transaction also until the first error, as the client then
        keeps the rest back until the transaction is aborted. Raises NotConnected when time is over."""
        if self._config.transactional:
            while not self.errors and self.client.flush(min(_LOOK_SECONDS, left(deadline))):
                if is_over(deadline):
                    break
        if not self.errors or not self._config.transactional:
            self.flush(deadline)

    def flush(self, deadline: float) -> None:
        """Until every record was delivered or refused. Raises NotConnected when time is over."""
        try:
            unfinished = self.client.flush(left(deadline))
        except KafkaException as error:
            raise ERRORS.lost(error.args[0], self._where) from None
        if isinstance(self.client, _Closed):
            raise NotConnected(f"{self._where}: closed", code="closed")
        if unfinished:
            self.close()
            late = f"not everything was acknowledged within {self._config.timeout_ms} ms"
            known = self._troubles.gravest
            if known is None:
                raise NotConnected(f"{self._where}: {late}", code="timeout")
            raise ERRORS.lost(known, f"{self._where}: {late}")

    def judged(self, records: Sequence[Record]) -> dict[int, Failure]:
        """`errors` as failures; they are then forgotten."""
        errors = dict(self.errors)
        self.errors.clear()
        return {index: self._failure(index, records[index], error) for index, error in errors.items()}

    def fits_in_a_batch(self, record: Record) -> bool:
        return len(record.body) < int(self.options["batch.size"])

    def forget_troubles(self) -> None:
        """What the client complained of before does not explain what comes now."""
        self._troubles.forget()

    def close(self) -> None:
        """Nothing that is still in the producer is sent any more."""
        producer, self.client = self.client, _Closed(self._where)
        self._reporters = []  # they hold this object, and it the producer
        if not isinstance(producer, _Closed):
            # It may have ended already, with a fatal error that was reported before.
            with contextlib.suppress(KafkaException):
                producer.purge()
                producer.flush(_CLOSE_SECONDS)

    def _report(self, index: int, error: KafkaError | None, _message: Any) -> None:
        if error is not None:
            self.errors[index] = error

    def _failure(self, index: int, record: Record, error: KafkaError) -> Failure:
        permanent, code = ERRORS.verdict(error)
        if code == "no_topic":
            self.topics.discard(record.subject)
            self.missing_topic = record.subject
        return Failure(index, permanent, code, mask(f"topic {record.subject!r}: {error_text(error)}"))


class _Closed:
    """Where the producer was."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __getattr__(self, name: str) -> Any:
        raise NotConnected(f"{self._where}: closed", code="closed")
