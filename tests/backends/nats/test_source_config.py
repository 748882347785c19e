from typing import Any

import pytest
from pydantic import ValidationError

from relay.backends.nats.config import NatsSourceConfig, consumer_name


def config(**keys: Any) -> NatsSourceConfig:
    return NatsSourceConfig.model_validate({"url": "nats://localhost:4222", "stream": "orders"} | keys)


def test_both_spellings_are_accepted() -> None:
    keys = {"nats_url": "nats://a:4222", "nats_stream": "orders", "nats_consumer": "relay-consumer"}
    made = NatsSourceConfig.model_validate(keys)
    assert (made.url, made.stream, made.consumer) == (["nats://a:4222"], "orders", "relay-consumer")


@pytest.mark.parametrize(
    "keys",
    [
        {"consumer": "a.b"},
        {"consumer": "a b"},
        {"consumer": ""},
        {"subject": "a b"},
        {"deliver_policy": "sometime"},
        {"deliver_policy": "by_start_sequence"},
        {"start_sequence": 7},
        {"deliver_policy": "new", "start_sequence": 7},
        {"deliver_policy": "by_start_sequence", "start_sequence": 0},
        {"ack_wait_ms": 10},
        {"max_ack_pending": 0},
        {"password": "x"},
        {"consumers": "x"},
    ],
)
def test_what_cannot_work_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**keys)


def test_secrets_are_not_in_its_text() -> None:
    made = config(url="nats://u:hidden1@a", user="u", password="hidden2", token="hidden3", nkey_seed="hidden4")
    assert "hidden" not in repr(made) + str(made)


def test_a_consumer_is_named_after_its_pipeline() -> None:
    assert consumer_name(config(), "orders-in") == "tide-orders-in"
    assert consumer_name(config(consumer="mine"), "orders-in") == "mine"


def test_pipelines_whose_names_nats_cannot_bear_have_consumers_of_their_own() -> None:
    names = ["a.b", "a b", "a>b", "a/b", "a-b", "日本", "x" * 300, "x" * 301]
    made = [consumer_name(config(), name) for name in names]
    assert len(set(made)) == len(names)
    assert all(config(consumer=name).consumer == name and len(name) < 250 for name in made)
