"""What is true of the Kafka sink alone."""

import uuid
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from relay.backends.kafka.sink import KafkaSink
from relay.backends.registry import sink_class
from relay.errors import ConfigError, NotConnected
from tests.backends.kafka.conftest import ours_alone
from tests.backends.kafka.harness import KafkaHarness
from tests.backends.steps import opened, publish
from tests.services.kafka import KafkaServer


@pytest.fixture
def harness(each_kafka: KafkaServer) -> KafkaHarness:
    return KafkaHarness(each_kafka)


def new_name() -> str:
    return f"new-{uuid.uuid4().hex[:8]}"


class TestTopics:
    def test_a_missing_one_is_not_connected_and_then_a_matter_for_a_person(self, harness: KafkaHarness) -> None:
        missing = new_name()
        with opened(harness) as sink:
            with pytest.raises(NotConnected, match=f"'{missing}' does not exist") as caught:
                publish(sink, harness.records(1, 2, topic=missing))
            assert caught.value.code == "no_topic"
            with pytest.raises(
                ConfigError, match=rf"contract.*kafka-topics.sh --create --topic {missing}.*create_topic"
            ):
                sink.open()
            harness.server.create_topic(missing)
            sink.open()
            assert publish(sink, harness.records(1, 2, topic=missing)) == []

    def test_what_comes_before_a_missing_one_is_delivered(self, harness: KafkaHarness) -> None:
        batch = [harness.record(1), harness.record(2, topic=new_name()), harness.record(3)]
        with opened(harness) as sink:
            failures = publish(sink, batch)
        assert [(f.index, f.permanent, f.code) for f in failures] == [(1, False, "no_topic"), (2, False, "not_sent")]
        assert len(harness.stored()) == 1

    def test_a_missing_one_is_made_as_configured(self, harness: KafkaHarness) -> None:
        missing = new_name()
        with opened(harness, create_topic=True, partitions=3, replication_factor=1) as sink:
            batch = [harness.record(n, topic=missing, key=str(n)) for n in range(30)]
            assert publish(sink, batch) == []
        assert {record.partition for record in harness.stored(missing)} == {0, 1, 2}

    @ours_alone
    def test_many_take_as_many_requests_as_few(self, harness: KafkaHarness, monkeypatch: pytest.MonkeyPatch) -> None:
        names = [f"{harness.topic}-{number}" for number in range(1000)]
        admin = AdminClient(harness.server.access)  # when it goes, so do its answers
        for answer in admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
            answer.result(30)
        asked: list[object] = []

        class Counting(Producer):
            def __getattribute__(self, name: str) -> Any:
                if name == "list_topics":
                    asked.append(name)
                return super().__getattribute__(name)

        monkeypatch.setattr("relay.backends.kafka.producer.Producer", Counting)
        batch = [harness.record(number, topic=name) for number, name in enumerate([*names, new_name()])]
        with opened(harness) as sink:
            failures = publish(sink, batch)
        assert [(failure.index, failure.code) for failure in failures] == [(1000, "no_topic")]
        assert len(asked) <= 5

    def test_one_that_is_deleted_is_missed(self, harness: KafkaHarness) -> None:
        with opened(harness, timeout_ms=2000) as sink:
            assert publish(sink, harness.records(1, 1)) == []
            harness.server.delete_topic(harness.topic)
            with pytest.raises(NotConnected):
                publish(sink, harness.records(2, 1))
            sink.open()
            with pytest.raises(NotConnected, match="does not exist"):
                publish(sink, harness.records(2, 1))

    @pytest.mark.parametrize("name", ["", "a b", "..", "x" * 250, "ü"])
    def test_no_topic_can_have_such_a_name(self, harness: KafkaHarness, name: str) -> None:
        batch = [harness.record(1), harness.record(2)._replace(subject=name), harness.record(3)]
        with opened(harness) as sink:
            assert [(f.index, f.permanent, f.code) for f in publish(sink, batch)] == [(1, True, "bad_topic")]
        assert len(harness.stored()) == 2


class TestRecords:
    def test_null_with_a_key_is_a_tombstone_and_without_one_it_is_text(self, harness: KafkaHarness) -> None:
        with opened(harness) as sink:
            assert publish(sink, [harness.record(1, key="k", body=b"null"), harness.record(2, body=b"null")]) == []
        assert [record.value for record in harness.stored()] == [None, b"null"]

    def test_the_key_may_be_a_template(self, harness: KafkaHarness) -> None:
        first, second = harness.records(1, 2)
        with opened(harness, key="{header.tenant}") as sink:
            assert publish(sink, [first._replace(headers={"tenant": "acme"}), second]) == []
        assert [record.key for record in harness.stored()] == [b"acme", None]

    def test_the_partition_is_that_of_javas_clients(self, harness: KafkaHarness) -> None:
        topic = new_name()
        harness.server.create_topic(topic, 10)
        # murmur2, as org.apache.kafka.common.utils.Utils computes it.
        expected = {key: (murmur2(key.encode()) & 0x7FFFFFFF) % 10 for key in ("a", "orders-1", "ключ", "123456789")}
        with opened(harness) as sink:
            assert publish(sink, [harness.record(n, topic=topic, key=key) for n, key in enumerate(expected)]) == []
        assert {(r.key or b"").decode(): r.partition for r in harness.stored(topic)} == expected

    def test_text_that_is_no_unicode_is_refused_alone(self, harness: KafkaHarness) -> None:
        batch = harness.records(1, 3)
        batch[1] = batch[1]._replace(headers={"h": "\ud800"})
        with opened(harness) as sink:
            assert [(f.index, f.permanent, f.code) for f in publish(sink, batch)] == [(1, True, "bad_text")]
        assert len(harness.stored()) == 2

    @pytest.mark.parametrize("transactional", [False, True])
    def test_a_topic_that_takes_less_than_a_batch_refuses_only_what_is_too_large(
        self, harness: KafkaHarness, transactional: bool
    ) -> None:
        topic = new_name()
        harness.server.create_topic(topic, max_message_bytes="2000")
        batch = [harness.record(n, topic=topic, body=b"%04d" % n * (750 if n == 7 else 50)) for n in range(20)]
        with opened(harness, compression="none", transactional=transactional, transactional_id=None) as sink:
            assert [(f.index, f.permanent, f.code) for f in publish(sink, batch)] == [(7, True, "too_large")]
        assert [int((r.value or b"")[:4]) for r in harness.stored(topic)] == [n for n in range(20) if n != 7]

    def test_acks_of_the_leader_alone_keep_the_order(self, harness: KafkaHarness) -> None:
        with opened(harness, acks="1", linger_ms=0) as sink:
            assert publish(sink, [harness.record(n, body=b"%d" % n) for n in range(500)]) == []
        assert [int(record.value or b"") for record in harness.stored()] == list(range(500))


class TestKeys:
    def valid(self, **keys: Any) -> Any:
        return KafkaSink.config_model.model_validate({"brokers": "localhost:9092"} | keys)

    @pytest.mark.parametrize(
        ("keys", "says"),
        [
            ({"acks": 0}, "acks"),
            ({"librdkafka": {"enable.idempotence": False}}, r"enable\.idempotence cannot be set here"),
            ({"librdkafka": {"plugin.library.paths": "/tmp/x.so"}}, r"plugin\.library\.paths"),
            ({"librdkafka": {"stats_cb": "x"}}, "stats_cb"),
            ({"librdkafka": {"sasl.kerberos.kinit.cmd": "touch /tmp/x"}}, r"kinit\.cmd"),
            ({"librdkafka": {"ssl.keystore.location": "/etc/shadow"}}, r"keystore\.location"),
            ({"librdkafka": {"sasl.oauthbearer.assertion.file": "/etc/shadow"}}, r"assertion\.file"),
            ({"librdkafka": {"no.such.key": 1}}, r"no\.such\.key"),
            ({"key": "{nonsense}"}, "nonsense"),
            ({"sasl_username": "u"}, "sasl_password"),
            ({"ssl_cert": "/c.pem"}, "ssl_key"),
            ({"transactional": True, "acks": "1"}, "acks all"),
            ({"transactional_id": "x"}, "needs transactional"),
            ({"brokers": []}, "brokers"),
        ],
    )
    def test_that_break_a_promise_are_refused(self, keys: dict[str, Any], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            self.valid(**keys)

    def test_may_be_spelt_otherwise(self) -> None:
        config = KafkaSink.config_model.model_validate({"kafka_brokers": ["a:1", "b:2"], "acks": -1})
        assert (config.brokers, config.acks) == ("a:1,b:2", "all")  # type: ignore[attr-defined]

    def test_show_no_password(self) -> None:
        config = self.valid(sasl_username="u", sasl_password="s3cret", librdkafka={"ssl.key.pem": "s3cret"})
        assert "s3cret" not in repr(config)


@ours_alone
def test_a_publish_that_takes_too_long_says_what_the_brokers_had(harness: KafkaHarness) -> None:
    with opened(harness, timeout_ms=1000) as sink:
        assert publish(sink, harness.records(1, 1)) == []
        harness.stop()
        with pytest.raises(NotConnected, match=r"within 1000 ms: .*Connection refused") as caught:
            publish(sink, harness.records(2, 1))
    assert caught.value.code == "not_connected"


def test_the_sink_is_the_one_of_the_table() -> None:
    assert sink_class("kafka") is KafkaSink


def murmur2(data: bytes) -> int:
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ k >> 24) * m & mask)
    if data[whole:]:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
