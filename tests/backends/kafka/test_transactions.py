"""The transactional Kafka sink: the offset in Kafka, crashes between Kafka and PostgreSQL, fencing."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from structlog.testing import capture_logs

from relay.backends.common.deadline import in_ms
from relay.backends.sink import Sink
from relay.errors import NotConnected
from relay.models import Drain, Progress
from tests.backends.kafka.conftest import ours_alone
from tests.backends.kafka.harness import KafkaHarness
from tests.backends.steps import Limits, opened, publish, within
from tests.services.kafka import KafkaServer


@pytest.fixture
def harness(each_kafka: KafkaServer) -> KafkaHarness:
    harness = KafkaHarness(each_kafka, transactional=True)
    harness._options["transactional_id"] = f"id-{harness.topic}"
    return harness


def drain(number: int, epoch: int = 1) -> Drain:
    return Drain("contract", epoch, number, 30_000)


def bodies(harness: KafkaHarness) -> list[int]:
    return [int(record.value or b"") for record in harness.stored()]


def send(harness: KafkaHarness, sink: Sink, numbers: Sequence[int]) -> None:
    assert publish(sink, [harness.record(number, body=b"%d" % number) for number in numbers]) == []


def stored_offset(harness: KafkaHarness) -> int:
    return harness.server.committed(f"id-{harness.topic}", harness.topic)[0]


def test_the_offset_is_committed_with_the_records(harness: KafkaHarness) -> None:
    with opened(harness) as sink:
        assert sink.begin(drain(1), 0) == Progress(0)
        send(harness, sink, [3, 5, 9])
    assert stored_offset(harness) == 9


def test_what_postgresql_did_not_learn_is_read_back_by_the_next_worker(harness: KafkaHarness) -> None:
    with opened(harness) as killed:
        killed.begin(drain(1), 0)
        send(harness, killed, range(1, 11))
        send(harness, killed, range(11, 21))
        with opened(harness) as other:
            assert other.begin(drain(1, epoch=2), 10) == Progress(20)
            send(harness, other, range(21, 31))
    assert bodies(harness) == list(range(1, 31))


def test_the_same_sink_goes_on_without_asking_and_knows_how_far_it_is(harness: KafkaHarness) -> None:
    with opened(harness) as sink:
        sink.begin(drain(1), 0)
        producer = sink._connection.producer.client  # type: ignore[attr-defined]
        send(harness, sink, range(1, 11))
        assert sink.begin(drain(2), 0) == Progress(10)
        send(harness, sink, range(11, 21))
        assert sink.begin(drain(3), 20) == Progress(20)
        assert sink._connection.producer.client is producer  # type: ignore[attr-defined]


def test_a_sink_that_others_may_have_followed_asks_again(harness: KafkaHarness) -> None:
    with opened(harness) as first, opened(harness) as second:
        first.begin(drain(1), 0)
        send(harness, first, range(1, 11))
        second.begin(drain(2), 10)
        send(harness, second, range(11, 21))
        assert first.begin(drain(3), 10) == Progress(20)
        send(harness, first, range(21, 31))
    assert bodies(harness) == list(range(1, 31))


def test_a_zombie_is_fenced(harness: KafkaHarness) -> None:
    with opened(harness) as zombie, opened(harness) as owner:
        zombie.begin(drain(1), 0)
        send(harness, zombie, [1])
        owner.begin(drain(1, epoch=2), 1)
        with pytest.raises(NotConnected) as caught:
            send(harness, zombie, [2])
        assert caught.value.code == "fenced"
        send(harness, owner, [2])
    assert bodies(harness) == [1, 2]


def test_an_offset_that_was_set_back_far_counts(harness: KafkaHarness) -> None:
    with opened(harness) as sink:
        sink.begin(drain(1), 0)
        for first in range(1, 81, 10):
            send(harness, sink, range(first, first + 10))
    with opened(harness) as sink:
        assert sink.begin(drain(2), 5) == Progress(5)
    with opened(harness) as sink:
        assert sink.begin(drain(3), 70) == Progress(80)


def test_an_offset_that_kafka_has_forgotten_is_postgresqls(harness: KafkaHarness) -> None:
    with opened(harness) as sink:
        sink.begin(drain(1), 0)
        send(harness, sink, [1])
    with opened(harness) as sink:
        assert sink.begin(drain(2), 50) == Progress(50)
        send(harness, sink, [51])
    assert stored_offset(harness) == 51


def test_what_was_refused_for_good_is_remembered_beside_the_offset(harness: KafkaHarness) -> None:
    harness.server.create_topic(f"{harness.topic}-small", max_message_bytes="1000")
    small = [harness.record(n, topic=f"{harness.topic}-small", body=b"%d" % n) for n in range(1, 7)]
    small[1] = small[1]._replace(body=b"2" * 5000)
    small[3] = small[3]._replace(subject="no topic")
    with opened(harness, compression="none") as killed:
        killed.begin(drain(1), 0)
        failures = publish(killed, small)
        assert [(f.index, f.permanent, f.code) for f in failures] == [(1, True, "too_large"), (3, True, "bad_topic")]
    with opened(harness) as other:
        progress = other.begin(drain(1, epoch=2), 0)
    assert progress.offset_id == 6
    assert [(number, f.permanent, f.code) for number, f in progress.dead] == [
        (2, True, "too_large"),
        (4, True, "bad_topic"),
    ]
    assert [int(record.value or b"") for record in harness.stored(f"{harness.topic}-small")] == [1, 3, 5, 6]


def test_of_many_that_are_refused_only_some_belong_to_one_batch(harness: KafkaHarness) -> None:
    batch = [harness.record(n, body=b"%d" % n if n % 2 else b"0" * 9_000_000) for n in range(1, 81)]
    with opened(harness) as sink:
        sink.begin(drain(1), 0)
        failures = publish(sink, batch)
        later = [f.index for f in failures if not f.permanent]
        assert len([f for f in failures if f.permanent]) == 25
        assert later == list(range(later[0], 80))
        # The rest, as a drain sends it.
        assert {f.code for f in publish(sink, batch[later[0] :])} == {"too_large"}
    assert bodies(harness) == list(range(1, 81, 2))


def test_records_of_an_aborted_transaction_are_hidden(harness: KafkaHarness) -> None:
    harness.server.create_topic(f"{harness.topic}-small", max_message_bytes="1000")
    batch = [harness.record(1), harness.record(2, topic=f"{harness.topic}-small", body=b"2" * 5000)]
    with opened(harness, compression="none", linger_ms=0) as sink:
        failures = publish(sink, batch)
        assert [(f.index, f.permanent) for f in failures] == [(1, True)]
    assert len(harness.stored()) == 1


def test_a_transaction_that_was_left_open_is_ended_by_the_next_worker(harness: KafkaHarness) -> None:
    with opened(harness) as killed:
        killed.begin(drain(1), 0)
        producer = killed._connection.producer.client  # type: ignore[attr-defined]
        producer.begin_transaction()
        producer.produce(harness.topic, b"7")
        assert producer.flush(10) == 0
        assert len(harness.stored(isolation="read_uncommitted")) == 1
        with opened(harness) as other:
            assert other.begin(drain(1, epoch=2), 0) == Progress(0)
            send(harness, other, [1])
    assert bodies(harness) == [1]


def test_a_step_that_does_not_come_back_is_not_waited_for(harness: KafkaHarness) -> None:
    with opened(harness) as sink:
        forgotten = threading.Event()
        transactions = sink._connection.transactions  # type: ignore[attr-defined]
        with pytest.raises(NotConnected, match="no answer within"):
            within(
                Limits.moment_seconds,
                lambda: transactions._bounded(lambda _: forgotten.wait(), time.monotonic() + 0.01),
            )
        forgotten.set()


def test_a_question_without_an_answer_leaves_no_client_that_would_end_the_process(
    own_kafka: Callable[..., KafkaServer],
) -> None:
    """If the coordinator returned, librdkafka would abort: it reaches for a question that it has timed out itself."""
    harness = KafkaHarness(own_kafka(), transactional=True)
    with opened(harness) as sink:
        transactions = sink._connection.transactions  # type: ignore[attr-defined]
        transactions._initialise(in_ms(5000))
        clients = librdkafka_clients()
        harness.server.kill()
        with pytest.raises(NotConnected, match="no answer within") as caught:
            transactions._read_back(in_ms(300))
        # Its traceback holds the frames of the call, as it does where a drain writes it to the log.
        assert caught.value.code == "timeout"
        assert librdkafka_clients() == clients
        harness.server.start()
        assert within(Limits.moment_seconds, lambda: transactions._read_back(in_ms(5000))) == (-1, None)


@ours_alone
def test_a_coordinator_that_still_reads_what_is_committed_is_waited_for(
    harness: KafkaHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that has just started, or taken over from another broker."""
    with opened(harness) as sink:
        sink.begin(drain(1), 0)
        send(harness, sink, [7])
    ask, answers = AdminClient.list_consumer_group_offsets, list[Future[object]]()

    def at_first_not(admin: AdminClient, question: list[Any], **options: Any) -> dict[str, Future[object]]:
        if answers:
            return ask(admin, question, **options)  # type: ignore[no-any-return]
        answers.append(Future())
        answers[0].set_exception(KafkaException(KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS)))
        return {question[0].group_id: answers[0]}

    monkeypatch.setattr(AdminClient, "list_consumer_group_offsets", at_first_not)
    with opened(harness) as sink:
        assert sink.begin(drain(2), 0) == Progress(7)
    assert answers


def librdkafka_clients() -> int:
    """Each has one main thread."""
    names = (task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm"))
    return sum(name == "rdk:main" for name in names)


class TestAClusterThatDropsTheMetadataOfOffsets:
    """Its offset alone cannot be told from one that an operator has set: messages of a crash are sent again."""

    @pytest.fixture
    def harness(self, own_kafka: Callable[..., KafkaServer]) -> KafkaHarness:
        harness = KafkaHarness(own_kafka(offset_metadata=False), transactional=True)
        harness._options["transactional_id"] = f"id-{harness.topic}"
        return harness

    def test_is_said_so_after_the_first_batch_and_after_a_crash(self, harness: KafkaHarness) -> None:
        with capture_logs() as logs, opened(harness) as killed:
            killed.begin(drain(1), 0)
            assert killed.caution == ""
            send(harness, killed, range(1, 11))
            killed.begin(drain(2), 10)
            assert "does not keep the metadata of the offset of group" in killed.caution
            assert "at least once" in killed.caution
            killed.begin(drain(3), 10)
            assert [entry["event"] for entry in logs].count("exactly once does not hold") == 1
            with opened(harness) as other:
                assert other.begin(drain(1, epoch=2), 5) == Progress(5)
                assert other.caution == killed.caution
                assert [entry["event"] for entry in logs].count("exactly once does not hold") == 2

    def test_one_that_keeps_it_is_asked_once(self, kafka_server: KafkaServer) -> None:
        harness = KafkaHarness(kafka_server, transactional=True)
        harness._options["transactional_id"] = f"id-{harness.topic}"
        with capture_logs() as logs, opened(harness) as sink:
            for number in range(1, 5):
                sink.begin(drain(number), (number - 1) * 10)
                send(harness, sink, range((number - 1) * 10 + 1, number * 10 + 1))
                assert sink.caution == ""
            transactions = sink._connection.transactions  # type: ignore[attr-defined]
            assert transactions._is_checked
        assert logs == []
