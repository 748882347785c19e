"""Topics that others use too: partitions are added while they are written and read, and others read beside us."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from operator import itemgetter

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from psycopg.types.json import Jsonb

from tests.backends.kafka.harness import KafkaHarness
from tests.backends.kafka.source_harness import KafkaSourceHarness
from tests.backends.source_steps import Drainer, Inbox, messages
from tests.backends.source_steps import opened as opened_source
from tests.backends.steps import Limits, opened, publish
from tests.fleets.single_drains import SLICE, Bench
from tests.services.apache_kafka import ApacheKafka
from tests.services.kafka import KafkaServer
from tests.services.postgres import Database
from tests.waiting import wait_until

# The client looks at the metadata of a topic every five minutes, unless it is told otherwise.
AT_ONCE = {"topic.metadata.refresh.interval.ms": 100}


@pytest.mark.parametrize("transactional", [False, True])
def test_partitions_that_are_added_under_way_lose_repeat_and_reorder_nothing(
    each_kafka: KafkaServer, transactional: bool
) -> None:
    kafka = KafkaHarness(each_kafka)
    topic, inbox, sent = kafka.topic, Inbox(), 0
    with (
        opened(
            kafka,
            librdkafka=AT_ONCE,
            transactional=transactional,
            transactional_id=kafka.topic if transactional else None,
        ) as sink,
        opened_source(KafkaSourceHarness(kafka), refresh_ms=100, auto_offset_reset="latest") as source,
        Drainer(source, inbox) as drainer,
    ):

        def written_to(partitions: int) -> bool:
            """Publishes a batch, and says whether the records are in so many partitions by now."""
            nonlocal sent
            batch = [
                kafka.record(number, key=f"k{number % 29}", body=b'{"n": %d}' % number)
                for number in range(sent + 1, sent + 21)
            ]
            assert publish(sink, batch) == []
            sent += len(batch)
            return len({record.partition for record in kafka.stored()}) == partitions

        for partitions in (1, 2, 4):
            if partitions > 1:
                each_kafka.widen_topic(topic, partitions)
            wait_until(partial(written_to, partitions), what=f"{partitions} partitions are used")
        drainer.wait_for(written=sent)
    assert sorted(inbox.numbers()) == list(range(1, sent + 1))
    assert inbox.repeats == 0
    # A server on a busy machine may close a connection that it has kept waiting.
    assert [reason for reason in drainer.reasons if "brokers are down" not in reason] == []
    of_key = defaultdict(list)
    for received in inbox.rows.values():
        of_key[received.partition, received.key].append(int(received.id.rpartition("/")[2]))
    assert all(offsets == sorted(offsets) for offsets in of_key.values())
    last = {
        record.key: record.partition
        for record in sorted(kafka.stored(), key=lambda found: int((found.value or b"")[6:-1]))
    }
    assert len(set(last.values())) > 1, "keys are spread over the partitions that there are now"


class Foreign:
    """A consumer of a group that shares out the partitions among its members, as most programs read."""

    def __init__(self, harness: KafkaSourceHarness, group: str) -> None:
        options = {"group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
        self._consumer = Consumer(harness.kafka.server.access | options)
        self._consumer.subscribe([harness.topic])
        self.seen: list[tuple[int, int]] = []

    def read(self) -> list[tuple[int, int]]:
        """Everything so far."""
        found = self._consumer.consume(1000, 0.05)
        self.seen += [(message.partition() or 0, message.offset() or 0) for message in found if message.error() is None]
        return self.seen

    def is_member(self) -> bool:
        self.read()
        return bool(self._consumer.assignment())

    def close(self) -> None:
        self._consumer.close()


@contextmanager
def two_workers(database: Database) -> Iterator[tuple[Bench, Bench]]:
    """Each with connections of its own, which stay open from one drain to the next."""
    one, other = (Bench(database, others_wait=lambda: True) for _ in range(2))  # an idle drain ends
    other.numbers = one.numbers
    try:
        yield one, other
    finally:
        one.close()
        other.close()


PARTITIONS, TURNS = 24, 4


def send_to_each_partition(harness: KafkaSourceHarness, each: int = 5) -> None:
    producer = Producer(harness.kafka.server.access)
    for partition in range(PARTITIONS):
        for message in messages(0, each):
            producer.produce(harness.topic, message.body, partition=partition)
    assert producer.flush(30) == 0


def test_each_pipeline_and_each_group_receives_everything_however_many_read(
    apache_kafka: ApacheKafka, database: Database
) -> None:
    """Two workers take turns at three pipelines. Others share a group, and one is in ours."""
    harness = KafkaSourceHarness(KafkaHarness(apache_kafka, partitions=PARTITIONS))
    inboxes = {f"{harness.topic}-{number}": f"inbox_{number}" for number in range(3)}
    alone = [f"tide-relay.{pipeline}" for pipeline in inboxes]
    others, intruder = [Foreign(harness, f"{harness.topic}-others") for _ in range(2)], Foreign(harness, alone.pop())
    config = harness.config() | SLICE | {"source_type": "kafka", "timeout_ms": int(Limits.patience_seconds * 1000)}
    with two_workers(database) as workers:
        for pipeline, inbox in inboxes.items():
            workers[0].query("select tide.inbox_create(%s)", inbox)
            workers[0].query("select tide.relay_set_inbox(%s, %s, %s)", pipeline, inbox, Jsonb(config))
        wait_until(lambda: min(member.is_member() for member in [*others, intruder]), 60, "all are members")
        for turn in range(TURNS):
            send_to_each_partition(harness)
            for pipeline, inbox in inboxes.items():
                drain_until(workers[turn % 2], pipeline, inbox, (turn + 1) * 5 * PARTITIONS)
        expected = [(partition, offset) for partition in range(PARTITIONS) for offset in range(5 * TURNS)]
        for inbox in inboxes.values():
            received = [tuple(map(int, known.split("/")[1:])) for known in workers[0].event_ids(inbox)]
            assert sorted(received, key=itemgetter(0)) == expected, "all, once, each partition in order"
    wait_until(lambda: sum(len(member.read()) for member in others) >= len(expected), what="the others have read all")
    assert sorted(others[0].seen + others[1].seen) == expected
    admin = AdminClient(apache_kafka.access)  # when it goes, so do its answers
    groups = [answer.result(10) for answer in admin.describe_consumer_groups(alone).values()]
    assert [group.members for group in groups] == [[], []], "no group of ours rebalances"
    for member in [*others, intruder]:
        member.close()


def drain_until(worker: Bench, pipeline: str, inbox: str, count: int) -> None:
    wait_until(lambda: worker.drain(pipeline) and len(worker.event_ids(inbox)) >= count, what="all is received")
