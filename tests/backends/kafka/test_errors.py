"""The table of Kafka's errors is complete, and says of few things that they will never work."""

from confluent_kafka import KafkaError

from relay.backends.kafka.errors import ERRORS
from tests.backends.clients import is_older

NAMES = {name for name in dir(KafkaError) if name.isupper() and isinstance(getattr(KafkaError, name), int)}


def test_every_error_of_the_client_has_a_verdict() -> None:
    assert len(NAMES) > 160
    assert NAMES - ERRORS.answers.keys() == {"NO_ERROR"}


def test_every_name_is_one_of_the_client() -> None:
    assert is_older("confluent-kafka") or ERRORS.answers.keys() - NAMES == set()


def test_only_a_record_that_the_broker_refuses_is_given_up() -> None:
    permanent = {name for name, code in ERRORS.answers.items() if code in ERRORS.permanent}
    assert permanent == {
        "MSG_SIZE_TOO_LARGE", "INVALID_MSG_SIZE", "RECORD_LIST_TOO_LARGE", "INVALID_RECORD", "INVALID_TIMESTAMP",
    }  # fmt: skip


def test_the_verdict_goes_by_the_code_of_the_error() -> None:
    assert ERRORS.verdict(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)) == (True, "too_large")
    assert ERRORS.verdict(KafkaError(KafkaError._ALL_BROKERS_DOWN)) == (False, "not_connected")
    assert ERRORS.verdict(KafkaError(29_999)) == (False, "rejected")


def test_a_certificate_that_is_refused_is_told_so_whatever_the_client_takes_it_for() -> None:
    text = "ssl://kafka:9093/bootstrap: error:0A000086:SSL routines::certificate verify failed (after 1ms)"
    for code in (KafkaError._SSL, KafkaError._TRANSPORT):
        assert ERRORS.verdict(KafkaError(code, text)) == (False, "tls")
    assert ERRORS.verdict(KafkaError(KafkaError._TRANSPORT, "connection refused")) == (False, "not_connected")
