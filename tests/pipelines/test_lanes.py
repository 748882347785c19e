"""The key `lanes` of a forward pipeline."""

import pytest

from relay.backends.registry import SOURCES, source_class
from relay.errors import ConfigError
from relay.pipelines.config import parse_forward, parse_reverse

REDIS = {"sink_type": "redis", "url": "redis://localhost:6379"}
KAFKA = {"sink_type": "kafka", "brokers": "localhost:9092"}


def test_a_pipeline_has_one_lane_unless_it_says_more():
    assert parse_forward(REDIS).pipeline.lanes == 1
    assert parse_forward(REDIS | {"lanes": 8}).pipeline.lanes == 8


@pytest.mark.parametrize("lanes", [0, 65, -1, "4", 2.0, True, None])
def test_lanes_are_a_whole_number_from_1_to_64(lanes):
    with pytest.raises(ConfigError, match="lanes: "):
        parse_forward(REDIS | {"lanes": lanes})


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (REDIS | {"exactly_once": True}, "with exactly_once, Redis takes the ids of a stream in one order"),
        (KAFKA | {"transactional": True}, "with transactional, Kafka keeps one offset for the pipeline"),
        (
            {"sink_type": "object_storage", "path": "/srv/out"},
            "an object holds what follows each other in the outbox",
        ),
    ],
    ids=["redis", "kafka", "object storage"],
)
def test_a_sink_that_needs_the_order_of_all_messages_has_one(config, reason):
    assert parse_forward(config | {"lanes": 1}).pipeline.lanes == 1
    with pytest.raises(ConfigError) as caught:
        parse_forward(config | {"lanes": 2})
    assert f"lanes (2) must be 1 for this sink: {reason}" in str(caught.value)


def test_sources_whose_parts_can_be_told_apart_have_lanes():
    kinds = {name for name in SOURCES if source_class(name).features.one_lane is None}
    assert kinds == {"kafka", "redis", "rabbitmq", "sqs"}
    config = {"source_type": "kafka", "brokers": "localhost:9092", "topic": "orders", "auto_offset_reset": "earliest"}
    assert parse_reverse(config).pipeline.lanes == 1
    assert parse_reverse(config | {"lanes": 3}).make_source("p").lane == (0, 1)
    with pytest.raises(ConfigError) as caught:
        parse_reverse({"source_type": "nats", "url": "nats://localhost", "stream": "orders", "lanes": 2})
    assert "lanes (2) must be 1 for this source: its consumer has one reader" in str(caught.value)
