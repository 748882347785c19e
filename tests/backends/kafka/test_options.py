"""What the keys of Kafka mean to librdkafka, where a promise hangs on it."""

from typing import Any

import pytest

from relay.backends.kafka.config import KafkaSinkConfig, KafkaSourceConfig, consumer_options, producer_options
from relay.backends.source import MAX_HELD_BYTES


def produced_with(**keys: Any) -> dict[str, Any]:
    return producer_options(KafkaSinkConfig.model_validate({"brokers": "b:1"} | keys), "orders")


@pytest.mark.parametrize("timeout_ms", [10, 10_000, 60_000])
def test_no_record_of_a_batch_gives_up_before_the_others(timeout_ms: int) -> None:
    options = produced_with(timeout_ms=timeout_ms, transactional=True)
    assert timeout_ms < options["message.timeout.ms"] <= options["transaction.timeout.ms"] <= 900_000


def test_without_idempotence_one_request_at_a_time_keeps_the_order() -> None:
    assert produced_with()["enable.idempotence"] is True
    options = produced_with(acks="1")
    assert (options["enable.idempotence"], options["max.in.flight.requests.per.connection"]) == (False, 1)


def test_the_transactional_id_is_the_pipelines_unless_it_is_named() -> None:
    assert produced_with(transactional=True)["transactional.id"] == "tide-relay.orders"
    assert produced_with(transactional=True, transactional_id="x")["transactional.id"] == "x"
    assert "transactional.id" not in produced_with()


def test_a_password_alone_means_an_encrypted_connection() -> None:
    assert produced_with(sasl_username="u", sasl_password="p")["security.protocol"] == "sasl_ssl"
    assert produced_with(ssl_verify=False)["security.protocol"] == "ssl"
    assert produced_with()["security.protocol"] == "plaintext"


def test_what_a_consumer_holds_is_bounded() -> None:
    options = consumer_options(KafkaSourceConfig.model_validate({"brokers": "b:1", "topic": "t"}), "orders")
    assert options["queued.max.messages.kbytes"] * 1024 + options["fetch.max.bytes"] <= MAX_HELD_BYTES
