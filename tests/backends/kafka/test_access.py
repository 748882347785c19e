"""Who may connect to Kafka, and how: credentials, TLS; and that librdkafka's own mock broker agrees with ours."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from relay.backends.kafka.sink import KafkaSink
from relay.backends.kafka.source import KafkaSource
from relay.errors import ConfigError, NotConnected
from relay.models import Record
from tests.backends.kafka.harness import KafkaHarness
from tests.backends.kafka.source_harness import KafkaSourceHarness
from tests.backends.source_steps import numbers, take
from tests.backends.source_steps import opened as opened_source
from tests.backends.steps import Limits, opened, publish, within
from tests.services.kafka import KafkaServer
from tests.services.proxy import Proxy


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {cert} -days 2 -subj /CN=kafka"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True, timeout=60
    )
    return cert, key


def test_tls_with_a_password_both_ways(own_kafka: Callable[..., KafkaServer], certificate: tuple[str, str]) -> None:
    harness = KafkaHarness(own_kafka(secured=True, certificate=certificate))
    # Without the key, sasl_* alone mean an encrypted connection.
    with opened(harness, security_protocol=None) as sink:
        assert publish(sink, [harness.record(1, body=b'{"n": 1}')]) == []
    with opened_source(KafkaSourceHarness(harness), security_protocol=None) as source:
        assert numbers(take(source, 1)) == [1]
    with pytest.raises(ConfigError, match=r"(?i)certificate verify failed"):
        harness.make_sink(ssl_ca=None).open()
    with opened(harness, ssl_ca=None, ssl_verify=False):
        pass
    with pytest.raises((ConfigError, NotConnected)):
        harness.make_sink(security_protocol="sasl_plaintext", ssl_ca=None, timeout_ms=1000).open()
    with pytest.raises(ConfigError, match=r"ssl_ca '/nowhere\.pem' cannot be read"):
        harness.make_sink(ssl_ca="/nowhere.pem").open()


def test_a_server_that_is_not_there_is_said_at_once() -> None:
    keys = {"brokers": "127.0.0.1:1", "timeout_ms": 30_000}
    sink = KafkaSink(KafkaSink.config_model.model_validate(keys), "contract")
    source = KafkaSource(KafkaSource.config_model.model_validate(keys | {"topic": "orders"}), "contract")
    for open_it in (sink.open, lambda: source.open({})):
        with pytest.raises(NotConnected, match="Connection refused") as caught:
            within(Limits.moment_seconds, open_it)
        assert caught.value.code == "not_connected"


def test_brokers_that_are_far_away_are_reached(
    own_kafka: Callable[..., KafkaServer], proxy: Callable[[str], Proxy]
) -> None:
    server = own_kafka()
    server.create_topic("orders")
    between = proxy(f"kafka://{server.url}")
    server.advertised_port = between.port
    server.restart()
    between.delay(0.15)
    keys = {"brokers": f"127.0.0.1:{between.port}"}
    sink = KafkaSink(KafkaSink.config_model.model_validate(keys), "contract")
    sink.open()
    assert publish(sink, [Record(1, "o:1", "orders", "k", b'{"n": 1}', {})]) == []
    sink.close()
    source = KafkaSource(KafkaSource.config_model.model_validate(keys | {"topic": "orders"}), "contract")
    source.open({})
    assert numbers(take(source, 1)) == [1]
    source.close()


def test_with_the_mock_broker_of_librdkafka() -> None:
    mock = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0})
    (broker,) = mock.list_topics(timeout=10).brokers.values()
    brokers = f"{broker.host}:{broker.port}"
    mock.list_topics("orders", timeout=10)  # which makes it
    sink = KafkaSink(KafkaSink.config_model.model_validate({"brokers": brokers}), "contract")
    sink.open()
    sent = [Record(n, f"o:{n}", "orders", "k", b'{"n": %d}' % n, {"relay-id": f"o:{n}"}) for n in range(1, 501)]
    assert publish(sink, sent) == []
    sink.close()
    source = KafkaSource(KafkaSource.config_model.model_validate({"brokers": brokers, "topic": "orders"}), "contract")
    source.open({})
    received = take(source, 500)
    source.ack(received)
    source.close()
    assert numbers(received) == list(range(1, 501))
    assert [message.headers["relay-id"] for message in received] == [record.dedup_id for record in sent]
