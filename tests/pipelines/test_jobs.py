"""The configuration of a queue of jobs: where its jobs are handed to, and errors that name the key."""

import pytest

from relay.backends.rabbitmq.config import RabbitmqSinkConfig
from relay.backends.redis.config import RedisKeys
from relay.errors import ConfigError
from relay.pipelines.jobs import parse_jobs


def test_a_queue_needs_nothing():
    config = parse_jobs({})
    assert dict(config.brokers) == {}
    assert (config.pipeline.dramatiq_queue, config.pipeline.celery_queue) == ("default", "celery")


def test_a_url_says_what_the_broker_is():
    brokers = parse_jobs(
        {"dramatiq_url": "rediss://:secret@one/2", "celery_url": "amqp://a:secret@two//", "tls_verify": False}
    ).brokers
    redis, rabbitmq = brokers["dramatiq"], brokers["celery"]
    assert isinstance(redis, RedisKeys) and isinstance(rabbitmq, RabbitmqSinkConfig)
    assert (redis.tls_verify, rabbitmq.tls_verify) == (False, True)  # which has no TLS
    assert (rabbitmq.exchange, rabbitmq.mandatory) == ("", True)
    assert "secret" not in repr(brokers)


def test_a_reference_may_stand_for_a_whole_url(monkeypatch):
    values = {"celery_url": "${env:TIDE_SECRET_BROKER}", "tls_verify": False}
    assert dict(parse_jobs(values).brokers) == {}
    monkeypatch.setenv("TIDE_SECRET_BROKER", "rediss://h")
    assert isinstance(parse_jobs(values, resolved=True).brokers["celery"], RedisKeys)
    monkeypatch.setenv("TIDE_SECRET_BROKER", "http://h:hidden")
    with pytest.raises(ConfigError, match="celery_url: must begin with") as refused:
        parse_jobs(values, resolved=True)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"celery_ulr": "redis://h"}, "celery_ulr: unknown key, did you mean celery_url"),
        ({"celery_url": "sqs://h"}, "celery_url: must begin with redis://, rediss://, amqp:// or amqps://"),
        ({"dramatiq_url": "redis://a, redis://b"}, "dramatiq_url: must name one server"),
        ({"dramatiq_url": "redis://a/b"}, "dramatiq_url: url must end with the number"),
        ({"dramatiq_url": "amqp://a:b:c@h:x"}, "dramatiq_url: url has an invalid port"),
        ({"celery_url": "redis://h", "tls_ca": "/ca"}, "tls_ keys need a dramatiq_url or celery_url"),
        ({"celery_priority_steps": [3, 6]}, "celery_priority_steps: must begin with 0"),
        ({"celery_url": "redis://${env:RELAY_BROKER_URL}"}, "celery_url: ${env:RELAY_BROKER_URL}"),
    ],
)
def test_what_is_wrong_is_said_by_its_key(values, said):
    with pytest.raises(ConfigError) as caught:
        parse_jobs(values)
    assert said in str(caught.value)
