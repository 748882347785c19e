"""What the Kafka source does where messages are gone, or a topic is another one than before."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from relay.backends.kafka.positions import Position
from relay.errors import ConfigError, NotConnected
from tests.backends.kafka.conftest import ours_alone
from tests.backends.kafka.harness import KafkaHarness
from tests.backends.kafka.source_harness import KafkaSourceHarness
from tests.backends.source_steps import Inbox, messages, numbers, opened, receive, store, take, until_it_raises
from tests.backends.steps import opened as opened_sink
from tests.backends.steps import publish, within
from tests.services.kafka import KafkaServer
from tests.waiting import wait_until


@pytest.fixture
def harness(each_kafka: KafkaServer) -> KafkaSourceHarness:
    return KafkaSourceHarness(KafkaHarness(each_kafka))


def recreate(harness: KafkaSourceHarness, then: Callable[[], object] = lambda: None) -> None:
    before = harness.topic_id()
    harness.kafka.server.delete_topic(harness.topic)
    harness.kafka.server.create_topic(harness.topic)
    then()
    wait_until(lambda: harness.topic_id() not in ("", before), what="the topic is another one")


class TestGaps:
    def test_what_was_removed_unread_stops_the_pipeline(self, harness: KafkaSourceHarness) -> None:
        harness.send(messages(1, 9))
        harness.kafka.server.trim(harness.topic, 0, 6)
        positions = {f"{harness.topic}/0": "2"}
        with pytest.raises(ConfigError, match=r"offsets 6 to 9, and 3 was to come next.*removed unread.*on_gap"):
            harness.make_source().open(positions)
        with opened(harness, positions, on_gap="continue") as source:
            assert numbers(take(source, 3)) == [7, 8, 9]

    @pytest.mark.parametrize("how", ["committed", "aborted", "by our sink"])
    def test_what_ends_a_transaction_is_no_message_that_was_removed_unread(
        self, harness: KafkaSourceHarness, how: str
    ) -> None:
        if how == "by our sink":
            with opened_sink(harness.kafka, transactional=True, transactional_id=harness.topic) as sink:
                assert publish(sink, [harness.kafka.record(1, body=b'{"n": 1}')]) == []
        else:
            harness.send_in_transaction(b'{"n": 1}', commit=True)
        if how == "aborted":
            harness.send_in_transaction(b'{"n": 99}', commit=False)
        end = 4 if how == "aborted" else 2
        place, inbox = f"{harness.topic}/0", Inbox()
        with opened(harness) as source:
            store(source, inbox, take(source, 1))
            assert receive(source, 10, 0.3) == []
            passed = source.passed()
            assert {name: Position.parse(text).offset for name, text in passed.items()} == {place: end - 1}
            assert source.passed() == {}, "each once"
            server = harness.kafka.server
            wait_until(lambda: server.committed("tide-relay.contract", harness.topic)[0] == end, what="no lag is left")
        harness.kafka.server.trim(harness.topic, 0, end)
        harness.send(messages(2, 1))
        with pytest.raises(ConfigError, match="removed unread"):
            harness.make_source().open(inbox.positions)
        with opened(harness, {**inbox.positions, **passed}) as source:
            assert numbers(take(source, 1)) == [2]

    @ours_alone
    def test_what_was_handed_out_and_given_back_is_not_passed(self, harness: KafkaSourceHarness) -> None:
        harness.send(messages(1, 9))
        with opened(harness) as source:
            source.ack(take(source, 3))
            take(source, 6)
            source.release()
            with harness.stall():
                assert receive(source, 10, 1.0) == []
                assert source.passed() == {}
            assert numbers(take(source, 6)) == [4, 5, 6, 7, 8, 9]

    def test_a_recreated_topic_stops_the_pipeline(self, harness: KafkaSourceHarness) -> None:
        harness.send(messages(1, 2))
        positions = {f"{harness.topic}/0": "7"}
        with pytest.raises(ConfigError, match=r"offsets 0 to 2, and 8 was to come next.*was recreated"):
            harness.make_source().open(positions)
        with opened(harness, positions, on_gap="continue") as source:
            assert numbers(take(source, 2)) == [1, 2]

    @pytest.mark.parametrize("again", [2, 3, 9])
    def test_a_recreated_topic_is_known_by_its_id_however_many_messages_it_has(
        self, harness: KafkaSourceHarness, again: int
    ) -> None:
        inbox = Inbox()
        harness.send(messages(1, 3))
        with opened(harness) as source:
            store(source, inbox, take(source, 3))
        recreate(harness)
        harness.send(messages(100, again))
        with pytest.raises(ConfigError, match=rf"was deleted and recreated \(its id is {harness.topic_id()}\).*on_gap"):
            harness.make_source().open(inbox.positions)
        with opened(harness, inbox.positions, on_gap="continue") as source:
            assert source.begun == {f"{harness.topic}/0": f"-1@{harness.topic_id()}@recreated"}
            store(source, inbox, take(source, again))
        assert inbox.numbers() == [1, 2, 3, *range(100, 100 + again)], "no event id is one of before"
        harness.send(messages(200, 1))
        with opened(harness, inbox.positions) as source:
            store(source, inbox, take(source, 1))
        assert inbox.numbers()[-1] == 200
        recreate(harness)
        harness.send(messages(300, 1))
        with opened(harness, inbox.positions, on_gap="continue") as source:
            store(source, inbox, take(source, 1))
        assert inbox.numbers()[-1] == 300

    def test_what_was_let_go_on_does_so_before_anything_comes(self, harness: KafkaSourceHarness) -> None:
        positions = {f"{harness.topic}/0": f"7@{harness.topic_id()}"}
        recreate(harness)
        with opened(harness, positions, on_gap="continue") as source:
            positions |= source.begun
        harness.send(messages(1, 1))
        with opened(harness, positions) as source:
            (message,) = take(source, 1)
        assert message.id == f"{harness.topic}/0/0@{harness.topic_id()}"

    def test_a_topic_that_is_recreated_while_it_is_read_is_noticed(self, harness: KafkaSourceHarness) -> None:
        inbox = Inbox()
        harness.send(messages(1, 2))
        with opened(harness, refresh_ms=100) as source:
            store(source, inbox, take(source, 2))
            recreate(harness, lambda: harness.send(messages(100, 5)))
            with pytest.raises(NotConnected) as caught:
                within(10, lambda: until_it_raises(lambda: receive(source, 10, 0.1)))
            assert caught.value.code == "no_topic"
            with pytest.raises(ConfigError, match="was deleted and recreated"):
                source.open(inbox.positions)

    def test_positions_without_an_id_are_those_of_the_topic_that_is_there(self, harness: KafkaSourceHarness) -> None:
        harness.send(messages(1, 3))
        with opened(harness, {f"{harness.topic}/0": "0"}) as source:
            assert numbers(take(source, 2)) == [2, 3]

    def test_what_goes_while_it_rests_is_said_by_the_next_open(self, harness: KafkaSourceHarness) -> None:
        harness.send(messages(1, 9))
        inbox = Inbox()
        with opened(harness) as source:
            store(source, inbox, take(source, 3))
            source.release()
            harness.kafka.server.trim(harness.topic, 0, 6)
            with pytest.raises(NotConnected) as caught:
                take(source, 1)
            assert caught.value.code == "out_of_range"
            with pytest.raises(ConfigError, match="removed unread"):
                source.open(inbox.positions)

    def test_nothing_is_missing_at_the_beginning_of_what_retention_left(self, harness: KafkaSourceHarness) -> None:
        harness.send(messages(1, 9))
        harness.kafka.server.trim(harness.topic, 0, 6)
        with opened(harness) as source:
            assert numbers(take(source, 3)) == [7, 8, 9]


class TestWithoutTopicIds:
    """Brokers before 2.8, and some that are no Apache Kafka."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[KafkaSourceHarness]:
        server = KafkaServer(tmp_path, topic_ids=False)
        server.start()
        try:
            yield KafkaSourceHarness(KafkaHarness(server))
        finally:
            server.stop()

    def test_a_position_is_an_offset_and_the_log_says_what_cannot_be_seen(self, harness: KafkaSourceHarness) -> None:
        harness.send(messages(1, 3))
        inbox = Inbox()
        with capture_logs() as logs, opened(harness) as source:
            store(source, inbox, take(source, 3))
        assert inbox.positions == {f"{harness.topic}/0": "2"}
        assert [entry["reason"] for entry in logs if "cannot be recognized" in entry["event"]] == [
            "its topics have no ids"
        ]

    def test_a_position_with_an_id_keeps_it(self, harness: KafkaSourceHarness) -> None:
        harness.send(messages(1, 3))
        with opened(harness, {f"{harness.topic}/0": "0@AbCdEfGhIjKlMnOpQrStUv@recreated"}) as source:
            (message, _) = take(source, 2)
        assert message.position == "1@AbCdEfGhIjKlMnOpQrStUv@recreated"
        assert message.id == f"{harness.topic}/0/1@AbCdEfGhIjKlMnOpQrStUv"
