"""Each publish as one transaction of Kafka that also stores how far the outbox is delivered.

The offset is a committed offset of the consumer group `tide-relay.<pipeline>` (or `transactional_id`), in partition 0
of a topic of the batch: the number is the id of the last message, the metadata with it a `Mark`. It is read back when a
drain begins on a new producer, after `init_transactions` has ended the transaction of the drain before and
fenced it. So a worker that ends between Kafka's commit and PostgreSQL's leaves nothing to be sent again.

PostgreSQL's offset wins when it is higher (the group's offset has expired), and also when it is lower than a worker
that only just lost its way can have left it: then someone has set it back, to have messages delivered again.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import structlog
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from relay.backends.common.deadline import is_over, left
from relay.backends.kafka.config import KafkaSinkConfig, transactional_id
from relay.backends.kafka.errors import ERRORS
from relay.backends.kafka.producer import KafkaProducer
from relay.errors import NotConnected
from relay.models import Drain, Failure, Progress, Record

log = structlog.get_logger(__name__)

# How many batches PostgreSQL may be behind Kafka: one is what a crash leaves; a settle may still be under way.
_BATCHES_BEHIND = 4
# In one batch, so that the metadata of the offset stays below the 4096 bytes that a broker takes.
_MOST_DEAD = 25
_MOMENT_SECONDS = 0.2
_NEVER_SECONDS = 60.0


class Mark(NamedTuple):
    """`12;15:too_large,17:bad_topic`: the metadata that is stored with the offset."""

    since: int
    """PostgreSQL's offset was at least this when the batch was sent."""
    dead: dict[int, str]
    """Code by message id, of those above `since` that were refused permanently."""

    def __str__(self) -> str:
        return f"{self.since};" + ",".join(f"{number}:{code}" for number, code in self.dead.items())

    @classmethod
    def parse(cls, text: str) -> "Mark | None":
        """None for a text that is not ours."""
        try:
            since, _, listed = text.partition(";")
            dead = dict(entry.split(":") for entry in listed.split(",") if entry)
            return cls(int(since), {int(number): code for number, code in dead.items()})
        except ValueError:
            return None


class Transactions:
    """Of one producer."""

    def __init__(self, config: KafkaSinkConfig, pipeline: str, where: str, producer: KafkaProducer) -> None:
        self._config = config
        self._where = where
        self._producer = producer
        self._group = transactional_id(config, pipeline)
        self._membership: Any = None
        self._drain: Drain | None = None
        self._bounds: list[int] = []
        """How far each of the last batches reached, the oldest first."""
        self._dead: dict[int, str] = {}
        self.caution = ""
        """What the cluster does not do that exactly once needs; empty: nothing that is known."""
        self._stored = -1
        """The offset that was last committed here, or read back."""
        self._is_checked = False
        """Whether an offset was read back, as it must be, that this sink committed."""

    def goes_on(self, drain: Drain) -> bool:
        last = self._drain
        # Else another drain may have used the transactional id meanwhile: only a new producer can tell.
        return self._membership is None or (
            last is not None and last.epoch == drain.epoch and last.number + 1 == drain.number
        )

    def begin(self, drain: Drain, offset_id: int, deadline: float) -> Progress:
        if self._membership is None:
            self._initialise(deadline)
            reached, mark = self._read_back(deadline)
            self._check(reached, mark)
        else:
            if not self._is_checked and self._stored >= 0:
                self._check(*self._read_back(deadline))
            reached, mark = self._bounds[-1], Mark(self._bounds[0], self._dead)
        self._drain = drain
        if mark is None or not mark.since <= offset_id < reached:
            self._bounds, self._dead = [offset_id], {}
            return Progress(offset_id)
        self._bounds, self._dead = [offset_id, reached], mark.dead
        dead = [(n, Failure(0, True, code, _REFUSED)) for n, code in mark.dead.items() if offset_id < n <= reached]
        return Progress(reached, tuple(dead))

    def _check(self, found: int, mark: Mark | None) -> None:
        """Whether the cluster keeps what it was given: at the first chance, and not only when a crash needs it."""
        if found < 0 and self._stored < 0:
            return  # nothing was committed yet
        # One that was read back on a new connection may be what an operator has set: the next of our own decides.
        self._is_checked, told = mark is not None or self._stored >= 0, self.caution
        lost = "" if mark is not None else "the offset" if found < 0 else "the metadata of the offset"
        self.caution = lost and (
            f"{self._where}: the cluster does not keep {lost} of group {self._group!r}, so transactional delivers at "
            "least once here: after a crash the last batches are sent again"
        )
        if self.caution and self.caution != told:
            log.warning("exactly once does not hold", reason=self.caution)

    def deliver(self, records: Sequence[Record], indexes: Sequence[int], deadline: float) -> dict[int, Failure]:
        """A record that Kafka refuses spoils its transaction: it is aborted, and begun again without that record."""
        if self._membership is None:
            self._initialise(deadline)
        todo, failures, one_by_one, purged = list(indexes), dict[int, Failure](), False, 0
        # What was refused before it came here.
        dead = dict.fromkeys(set(range(indexes[-1])).difference(indexes), "bad_topic")
        end = indexes[-1] + 1
        while todo:
            refused, committed = self._attempt(records, todo, dead, one_by_one, end, purged > 1, deadline)
            # After a refusal librdkafka goes on with a sequence number that the broker does not expect; it purges that
            # transaction too, and begins the next with an epoch of its own.
            purged += not refused
            suspects = [
                i for i, f in refused.items() if f.code == "too_large" and self._producer.fits_in_a_batch(records[i])
            ]
            failures |= {i: f for i, f in refused.items() if one_by_one or i not in suspects}
            one_by_one = one_by_one or bool(suspects)
            if committed:
                break
            dead |= {index: failure.code for index, failure in failures.items()}
            if len(dead) > _MOST_DEAD:
                end = sorted(dead)[_MOST_DEAD]
                dead = {index: code for index, code in dead.items() if index < end}
            todo = [index for index in todo if index < end and index not in dead]
        failures = {index: failure for index, failure in failures.items() if index < end}
        return failures | {i: Failure(i, False, "not_sent", _NEXT) for i in indexes if i >= end}

    def _attempt(
        self,
        records: Sequence[Record],
        todo: list[int],
        dead: dict[int, str],
        one_by_one: bool,
        end: int,
        last: bool,
        deadline: float,
    ) -> tuple[dict[int, Failure], bool]:
        """What was refused permanently, and whether the rest is delivered. Raises NotConnected otherwise."""
        try:
            self._producer.client.begin_transaction()
            refused: dict[int, Failure] = {}
            for part in [(index,) for index in todo] if one_by_one else [todo]:
                refused |= self._producer.produce(records, part, deadline)
                self._producer.wait(deadline)
                if self._producer.errors:
                    break
            if self._producer.errors or len(dead) + len(refused) > _MOST_DEAD:
                judged = refused | self._producer.judged(records)
                self._until(self._producer.client.abort_transaction, deadline)
                self._producer.flush(deadline)
                self._producer.errors.clear()  # of what the abort purged
                culprits = {index: failure for index, failure in judged.items() if failure.permanent}
                failure = next(iter(judged.values()))
                if not culprits and (last or failure.code != "timeout"):
                    raise NotConnected(f"{self._where}: {failure.reason}", code=failure.code)
                # The others were only held back with them.
                return culprits, False
            codes = dead | {index: failure.code for index, failure in refused.items()}
            topic = next((records[i].subject for i in todo if i not in refused), None)
            if topic is not None:
                self._commit(topic, records[end - 1].id, {records[i].id: code for i, code in codes.items()}, deadline)
        except KafkaException as error:
            raise ERRORS.lost(error.args[0], self._where) from None
        return refused, True

    def _commit(self, topic: str, reached: int, dead: dict[int, str], deadline: float) -> None:
        since = self._bounds[0] if self._bounds else reached
        told = {number: code for number, code in sorted({**self._dead, **dead}.items()) if number > since}
        position = TopicPartition(topic, 0, reached, metadata=str(Mark(since, told)))
        self._until(partial(self._producer.client.send_offsets_to_transaction, [position], self._membership), deadline)
        self._until(self._producer.client.commit_transaction, deadline)
        self._bounds, self._dead, self._stored = [*self._bounds, reached][-_BATCHES_BEHIND:], told, reached

    def _until(self, step: Callable[[float], object], deadline: float) -> None:
        """Takes a step of a transaction, and again while it may succeed."""
        while True:
            try:
                self._bounded(step, deadline)
            except KafkaException as error:
                if not error.args[0].retriable() or is_over(deadline):
                    raise
                self._producer.client.poll(0.05)
            else:
                return

    def _bounded(self, step: Callable[[float], object], deadline: float) -> None:
        """librdkafka can forget the time it was given (its issues 5456 and 5511): we wait no longer than that.

        The thread then ends when the producer, which is not used any more, hears from its brokers again.
        """
        problems: list[Exception] = []

        def run() -> None:
            try:
                step(left(deadline))
            except KafkaException as error:
                problems.append(error)

        thread = threading.Thread(target=run, name="kafka-transaction", daemon=True)
        thread.start()
        thread.join(left(deadline) + _MOMENT_SECONDS)
        if thread.is_alive():
            raise self._no_answer()
        if problems:
            raise problems[0]

    def _no_answer(self) -> NotConnected:
        return NotConnected(f"{self._where}: no answer within {self._config.timeout_ms} ms", code="timeout")

    def _initialise(self, deadline: float) -> None:
        """Fences the one that used the transactional id before, and ends what it left. Raises what `open` raises."""
        try:
            self._until(self._producer.client.init_transactions, deadline)
            member = Consumer(self._producer.options | {"group.id": self._group})
            self._membership = member.consumer_group_metadata()
            member.close()
        except KafkaException as error:
            raise ERRORS.translated(error.args[0], self._where, opening=True) from None

    def _read_back(self, deadline: float) -> tuple[int, Mark | None]:
        """How far Kafka says that we are, and the mark with it; -1 where nothing is stored."""
        admin = AdminClient(self._producer.options)
        question = [ConsumerGroupTopicPartitions(self._group)]
        try:
            stored = None
            while stored is None:
                answers = admin.list_consumer_group_offsets(
                    question, require_stable=True, request_timeout=left(deadline) + _NEVER_SECONDS
                )
                try:
                    stored = answers[self._group].result(left(deadline)).topic_partitions
                except KafkaException as error:
                    # A coordinator that has started, or taken over, first reads what is committed.
                    if ERRORS.verdict(error.args[0]).code != "unavailable" or is_over(deadline):
                        raise
                    self._producer.client.poll(0.05)
        except TimeoutError:
            raise self._no_answer() from None
        except KafkaException as error:
            raise ERRORS.translated(error.args[0], self._where, opening=True) from None
        finally:
            # librdkafka ends the whole process if a coordinator returns after a question to it has timed out (up to
            # 2.16: `rd_kafka_admin_coord_request`). So we stop waiting first, and ask no more.
            del admin
        known = [place for place in stored if place.error is None and place.offset >= 0]
        newest = max(known, key=lambda place: place.offset, default=None)
        if newest is None:
            return -1, None
        try:
            return newest.offset, Mark.parse(newest.metadata or "")
        except UnicodeDecodeError:  # of another program, which uses the group
            return newest.offset, None


_REFUSED = "refused permanently by Kafka, in a transaction whose worker ended before it could record that here"
_NEXT = f"more than {_MOST_DEAD} records before it were refused permanently: it is sent with the next batch"
