"""What is true of the Kafka source alone: what becomes of a record, and which partitions are read from where."""

from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from relay.backends.kafka.source import KafkaSource
from relay.backends.registry import source_class
from relay.errors import ConfigError, NotConnected
from relay.models import InboxRow, Received
from relay.wire.decode import Decoder
from tests.backends.kafka.conftest import ours_alone
from tests.backends.kafka.harness import KafkaHarness
from tests.backends.kafka.source_harness import KafkaSourceHarness
from tests.backends.source_harness import Sent
from tests.backends.source_steps import Inbox, messages, numbers, opened, receive, store, take, until_it_raises
from tests.backends.steps import Limits, within
from tests.services.apache_kafka import ApacheKafka
from tests.services.kafka import KafkaServer
from tests.waiting import wait_until


@pytest.fixture
def harness(each_kafka: KafkaServer) -> KafkaSourceHarness:
    return KafkaSourceHarness(KafkaHarness(each_kafka))


class TestWhatIsRead:
    def test_a_message_is_known_by_topic_partition_and_offset(self, harness: KafkaSourceHarness) -> None:
        harness.send([Sent(b"{}", "k", {"a": "1"}), Sent(b"[]")])
        with opened(harness) as source:
            topic, place = harness.topic, f"{harness.topic}/0"
            assert take(source, 2) == [
                Received(f"{place}/0", b"{}", {"a": "1"}, "k", topic, place, f"0@{harness.topic_id()}"),
                Received(f"{place}/1", b"[]", {}, None, topic, place, f"1@{harness.topic_id()}"),
            ]

    def test_a_tombstone_is_null(self, harness: KafkaSourceHarness) -> None:
        producer = Producer(harness.kafka.server.access)
        producer.produce(harness.topic, None, b"k")
        producer.flush(10)
        with opened(harness) as source:
            (message,) = take(source, 1)
        assert (message.body, message.key) == (b"null", "k")

    def test_a_tombstone_has_no_type_so_a_cloudevent_is_null_and_not_the_text(
        self, harness: KafkaSourceHarness
    ) -> None:
        producer = Producer(harness.kafka.server.access)
        headers: list[tuple[str, str | bytes | None]] = [
            ("ce_specversion", "1.0"), ("ce_id", "1"), ("ce_source", "s"), ("ce_type", "t"),
            ("Content-Type", "text/plain"),
        ]  # fmt: skip
        producer.produce(harness.topic, None, b"k", headers=headers)
        producer.produce(harness.topic, b"null", b"k", headers=headers)
        producer.flush(10)
        with opened(harness) as source:
            rows = [Decoder("p", wire_format="cloudevents").decode(message) for message in take(source, 2)]
        assert [row.payload for row in rows if isinstance(row, InboxRow)] == ["null", '"null"']

    def test_what_is_no_text_is_base64_and_the_last_of_a_name_counts(self, harness: KafkaSourceHarness) -> None:
        headers: list[tuple[str, str | bytes | None]] = [
            ("a", b"1"),
            ("a", b"2"),
            ("none", None),
            ("bytes", b"\xff\x00"),
            ("nul", b"x\0"),
        ]
        producer = Producer(harness.kafka.server.access)
        producer.produce(harness.topic, b"{}", b"\xfe", headers=headers)
        producer.produce(harness.topic, b"{}", b"k\0", headers=[("nul", b"x\0")])
        producer.flush(10)
        with opened(harness) as source:
            first, second = take(source, 2)
        assert (first.key, second.key, second.headers) == ("/g==", "awA=", {"nul": "eAA="})
        assert first.headers == {"a": "2", "none": "", "bytes": "/wA=", "nul": "eAA="}

    def test_only_what_was_committed_is_read(self, harness: KafkaSourceHarness) -> None:
        harness.send(messages(1, 1))
        harness.send_in_transaction(b'{"n": 99}', commit=False)
        harness.send_in_transaction(b'{"n": 2}', commit=True)
        inbox = Inbox()
        with opened(harness) as source:
            store(source, inbox, take(source, 2))
        harness.send(messages(3, 1))
        with opened(harness, inbox.positions) as source:
            assert numbers(take(source, 1)) == [3]
        assert inbox.numbers() == [1, 2]


class TestPartitionsAndTopics:
    def test_each_partition_goes_on_from_its_own_position(self, each_kafka: KafkaServer) -> None:
        harness = KafkaSourceHarness(KafkaHarness(each_kafka, partitions=3))
        for partition in range(3):
            harness.send_to(harness.topic, messages(partition * 100, 10), partition)
        positions = {f"{harness.topic}/0": "4", f"{harness.topic}/2": "9"}
        with opened(harness, positions) as source:
            received = take(source, 15)
        assert sorted(numbers(received)) == [5, 6, 7, 8, 9, *range(100, 110)]

    def test_several_topics_and_patterns(self, harness: KafkaSourceHarness) -> None:
        other, third = f"{harness.topic}-b", f"{harness.topic}-c"
        harness.kafka.server.create_topic(other)
        with opened(harness, topic=f"{harness.topic},^{harness.topic}-.*", refresh_ms=100) as source:
            harness.send(messages(1, 1))
            harness.send_to(other, messages(2, 1))
            assert sorted(numbers(take(source, 2))) == [1, 2]
            harness.kafka.server.create_topic(third)
            harness.send_to(third, messages(3, 1))
            assert numbers(take(source, 1)) == [3]

    def test_a_new_partition_is_read_from_its_beginning(self, harness: KafkaSourceHarness) -> None:
        harness.send(messages(1, 1))
        inbox = Inbox()
        with opened(harness, refresh_ms=100, auto_offset_reset="latest") as source:
            assert receive(source, 10, 0) == []
            harness.kafka.server.widen_topic(harness.topic, 2)
            harness.send_to(harness.topic, messages(2, 1), 1)
            store(source, inbox, take(source, 1))
            assert inbox.numbers() == [2]
            source.release()
            harness.send_to(harness.topic, messages(3, 1), 1)
            store(source, inbox, take(source, 1))
        harness.kafka.server.widen_topic(harness.topic, 3)
        harness.send_to(harness.topic, messages(4, 1), 2)
        with opened(harness, inbox.positions, auto_offset_reset="latest") as source:
            store(source, inbox, take(source, 1))
        assert inbox.numbers() == [2, 3, 4]

    def test_many_partitions_and_topics_take_as_many_requests_as_few(
        self, each_kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else a topic with enough of them never opens, as all requests have one time limit."""
        many = 30 if isinstance(each_kafka, ApacheKafka) else 1000  # it takes 13 s to make a thousand
        asked: list[str] = []

        class Counting(Consumer):
            def __getattribute__(self, name: str) -> Any:
                if name in {"list_topics", "get_watermark_offsets", "offsets_for_times", "committed", "commit"}:
                    asked.append(name)
                return super().__getattribute__(name)

        monkeypatch.setattr("relay.backends.kafka.reader.Consumer", Counting)
        harness = KafkaSourceHarness(KafkaHarness(each_kafka, partitions=many))
        topics = [harness.topic, *(f"{harness.topic}-{number}" for number in range(7))]
        for topic in topics[1:]:
            each_kafka.create_topic(topic)
        producer = Producer(each_kafka.access)
        for partition in range(0, many, 2):
            producer.produce(harness.topic, b'{"n": 1}', partition=partition)
        assert producer.flush(30) == 0
        known = {f"{harness.topic}/{partition}": "0" for partition in range(0, many, 2)}
        for reset in ("earliest", "latest"):
            asked.clear()
            with opened(harness, known, topic=topics, auto_offset_reset=reset, refresh_ms=100) as source:
                assert len(asked) <= 6, asked
                harness.send_to(harness.topic, messages(2, 1), many - 1)
                assert numbers(take(source, 1)) == [2]
                asked.clear()
                for _ in range(5):
                    receive(source, 1, 0.1)
                assert 1 <= len(asked) <= 5, asked

    def test_a_topic_without_a_name_or_a_broken_pattern_is_refused(self, harness: KafkaSourceHarness) -> None:
        for wrong in ("", "a,,b", "^("):
            with pytest.raises(ValueError, match="topic"):
                harness.make_source(topic=wrong)


class TestWhereItBegins:
    def test_latest_holds_over_a_restart(self, harness: KafkaSourceHarness) -> None:
        harness.send(messages(1, 3))
        with opened(harness, auto_offset_reset="latest", group_id=harness.topic) as source:
            assert receive(source, 10, 0.1) == []
        harness.send(messages(4, 2))
        with opened(harness, auto_offset_reset="latest", group_id=harness.topic) as source:
            assert numbers(take(source, 2)) == [4, 5]

    def test_latest_holds_although_the_group_has_forgotten_it(self, harness: KafkaSourceHarness) -> None:
        harness.send(messages(1, 3))
        with opened(harness, auto_offset_reset="latest", group_id=harness.topic) as source:
            begun = dict(source.begun)
        assert begun == {f"{harness.topic}/0": f"2@{harness.topic_id()}"}
        harness.send(messages(4, 2))
        with opened(harness, begun, auto_offset_reset="latest", group_id=f"{harness.topic}-other") as source:
            assert not source.begun
            assert numbers(take(source, 2)) == [4, 5]

    def test_a_topic_of_a_pattern_that_is_added_while_none_looks_is_read_from_its_beginning(
        self, harness: KafkaSourceHarness
    ) -> None:
        server, pattern = harness.kafka.server, f"^{harness.topic}.*"
        options: dict[str, Any] = {"topic": pattern, "auto_offset_reset": "latest", "group_id": harness.topic}
        harness.send(messages(1, 3))
        with opened(harness, **options) as source:
            assert receive(source, 10, 0.1) == []
            begun = dict(source.begun)
        server.create_topic(f"{harness.topic}-idle")
        harness.send_to(f"{harness.topic}-idle", messages(10, 2))
        inbox = Inbox()
        with opened(harness, **options) as source:
            store(source, inbox, take(source, 2))
        assert inbox.numbers() == [10, 11]
        server.create_topic(f"{harness.topic}-read")
        harness.send_to(f"{harness.topic}-read", messages(20, 2))
        with opened(harness, begun | inbox.positions, **options | {"group_id": f"{harness.topic}-other"}) as source:
            assert numbers(take(source, 2)) == [20, 21]

    @pytest.mark.parametrize("reset", ["latest", "error"])
    def test_so_is_one_of_a_pattern_that_had_no_topic_at_first(self, harness: KafkaSourceHarness, reset: str) -> None:
        name = f"later-{harness.topic}"
        options: dict[str, Any] = {"topic": f"^{name}.*", "auto_offset_reset": reset, "group_id": name}
        with opened(harness, **options) as source:
            assert receive(source, 10, 0.1) == []
            begun = dict(source.begun)
        assert begun == {f"^{name}.*": "read"}
        harness.kafka.server.create_topic(name)
        harness.send_to(name, messages(1, 2))
        with opened(harness, begun, **options) as source:
            assert not source.begun
            assert numbers(take(source, 2)) == [1, 2]

    def test_a_pattern_that_is_new_begins_where_auto_offset_reset_says(self, harness: KafkaSourceHarness) -> None:
        other = f"other-{harness.topic}"
        harness.kafka.server.create_topic(other)
        harness.send(messages(1, 3))
        harness.send_to(other, messages(10, 3))
        options: dict[str, Any] = {"auto_offset_reset": "latest", "group_id": harness.topic}
        with opened(harness, **options) as source:
            begun = dict(source.begun)
        with opened(harness, begun, topic=f"{harness.topic},^other-{harness.topic}", **options) as source:
            assert receive(source, 10, 0.1) == []
            assert source.begun.keys() == {f"^{other}", f"{other}/0"}

    def test_error_asks_a_person(self, harness: KafkaSourceHarness) -> None:
        with pytest.raises(ConfigError, match="set auto_offset_reset to earliest"):
            harness.make_source(auto_offset_reset="error").open({})

    def test_a_group_that_is_named_is_followed(self, harness: KafkaSourceHarness) -> None:
        harness.send(messages(1, 5))
        before = Consumer(harness.kafka.server.access | {"group.id": harness.topic})
        before.commit(offsets=[TopicPartition(harness.topic, 0, 3)], asynchronous=False)
        before.close()
        with opened(harness, group_id=harness.topic) as source:
            assert numbers(take(source, 2)) == [4, 5]
        with opened(harness, {f"{harness.topic}/0": "0"}, group_id=harness.topic) as source:
            assert numbers(take(source, 4)) == [2, 3, 4, 5]

    def test_what_is_done_is_committed_to_the_group(self, harness: KafkaSourceHarness) -> None:
        harness.send(messages(1, 5))
        with opened(harness) as source:
            source.ack(take(source, 3))
            server = harness.kafka.server
            wait_until(lambda: server.committed("tide-relay.contract", harness.topic)[0] == 3, what="it is committed")

    @ours_alone
    def test_a_group_that_nobody_can_be_told_of_does_not_hold_up_the_end(self, harness: KafkaSourceHarness) -> None:
        harness.send(messages(1, 5))
        with opened(harness, timeout_ms=1000) as source:
            taken = take(source, 3)
            harness.stop()
            try:
                with pytest.raises(NotConnected):
                    within(10, lambda: until_it_raises(lambda: receive(source, 10, 0.1)))
                source.ack(taken)
                within(1 + Limits.moment_seconds, source.close)
            finally:
                harness.start()


def test_the_source_is_the_one_of_the_table() -> None:
    assert source_class("kafka") is KafkaSource
