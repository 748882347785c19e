"""What becomes of a job that cannot be handed off: it is retried, or dead with the reason; its neighbours go on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from relay.jobs.models import Ended
from tests.backends.rabbitmq.harness import Broker
from tests.workers.jobs.hand_off.jobs import job

SENT = Ended("s")


@pytest.fixture(params=["redis", "rabbitmq"])
def server(request: pytest.FixtureRequest, run_dir: Path) -> Any:
    """A broker with the empty queue `mail`, and `read()`, the number of its messages."""
    made = request.getfixturevalue(f"{request.param}_server")
    if request.param == "rabbitmq":
        Broker(made).ask(
            lambda channel: (channel.queue_delete("mail"), channel.queue_declare("mail", auto_delete=False))
        )
    return made


def waiting(server: Any) -> int:
    """Messages of Celery in the queue."""
    if server.url.startswith("redis"):
        with redis.Redis.from_url(server.url) as client:
            return client.llen("mail")
    return Broker(server).count("mail")


@contextmanager
def limited(server: Any) -> Iterator[None]:
    """The server takes 1 MiB at most."""
    if server.url.startswith("redis"):
        with redis.Redis.from_url(server.url) as client:
            client.config_set("proto-max-bulk-len", 1024 * 1024)
            yield
            client.config_set("proto-max-bulk-len", 512 * 1024 * 1024)
    else:
        with Broker(server).limited(1_000_000):
            yield


def test_a_lost_broker_costs_an_attempt_only_while_it_is_away(server, proxy, hand_off):
    between = proxy(server.url)
    sender = hand_off(celery_url=between.through(server.url), timeout_ms=3000)
    assert sender.send_many([job("celery")]) == [SENT]
    between.cut()  # as a server does to an idle connection
    assert sender.send_many([job("celery")]) == [SENT]
    between.refuse()
    [lost] = sender.send_many([job("celery")])
    assert (lost.outcome, lost.code) == ("r", "not_connected")
    assert lost.error is not None and "job queue 'receipts': Celery's R" in lost.error
    between.heal()
    assert sender.send_many([job("celery")]) == [SENT]
    assert waiting(server) == 3


def test_the_primary_is_found_after_a_failover_under_the_same_name(redis_server, own_redis, proxy, hand_off):
    replica = own_redis()
    with redis.Redis.from_url(replica.url) as client:
        client.config_set("requirepass", redis_server.password)
        between = proxy(replica.url)
        sender = hand_off(celery_url=between.through(redis_server.url), timeout_ms=3000)
        assert sender.send_many([job("celery")]) == [SENT]
        client.replicaof("127.0.0.1", 1)
        between.lead_to(redis_server.port)
        assert sender.send_many([job("celery")]) == [SENT]
    assert waiting(redis_server) == 1


def test_what_is_too_large_is_dead_and_its_neighbours_go_on(server, hand_off):
    large = job("celery", '{"args": ["' + "x" * 1_100_000 + '"]}')
    sender = hand_off(celery_url=server.url)
    with limited(server):
        first, too_large, last = sender.send_many([job("celery"), large, job("celery")])
    assert (first, last) == (SENT, SENT)
    assert (too_large.outcome, too_large.code) == ("d", "too_large")
    assert waiting(server) >= 2  # RabbitMQ may have taken the first before it closed the channel


def test_wrong_credentials_are_for_an_operator(server, hand_off):
    sender = hand_off(dramatiq_url=server.url.replace(server.password, "not-the-password"))
    [refused] = sender.send_many([job("dramatiq")])
    assert (refused.outcome, refused.code) == ("r", "config")
    assert refused.error is not None and "not-the-password" not in refused.error


@pytest.mark.parametrize(
    ("system", "changes", "code", "said"),
    [
        ("celery", {"payload": '{"arguments": [1]}'}, "bad_payload", '{"args": [...], "kwargs": {...}}'),
        ("celery", {"payload": "[1, 2]"}, "bad_payload", '{"args": [...], "kwargs": {...}}'),
        ("dramatiq", {"payload": '{"args": {"a": 1}}'}, "bad_payload", "args must be a list"),
        ("celery", {"options": '{"celery": {"countdown": 5}}'}, "bad_options", "known: expires, time_limit, soft"),
        ("celery", {"options": '{"celery": {"expires": "2030-01-01T00:00:00"}}'}, "bad_options", "expires"),
        ("dramatiq", {"options": '{"priority": 256}'}, "bad_options", "priority is 256"),
        ("dramatiq", {"options": '{"queue": ""}'}, "bad_options", "queue must be"),
        ("dramatiq", {"options": '{"dramatiq": []}'}, "bad_options", "$.dramatiq"),
    ],
)
def test_a_job_that_is_no_message_is_dead_and_says_why(redis_server, hand_off, system, changes, code, said):
    sender = hand_off(**{f"{system}_url": redis_server.url})
    bad, good = sender.send_many([job(system, **changes), job(system)])
    assert good == SENT
    assert (bad.outcome, bad.code) == ("d", code)
    assert said in bad.error


def test_each_kind_goes_to_its_own_broker_and_one_without_waits_for_its_url(redis_server, hand_off):
    sender = hand_off(dramatiq_url=redis_server.url)
    first, second = sender.send_many([job("celery"), job("dramatiq")])
    assert second == SENT
    assert (first.outcome, first.code) == ("r", "config")
    assert first.error is not None and "has no celery_url" in first.error


def test_a_key_that_is_not_a_list_is_left_alone(redis_server, hand_off):
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("dramatiq:mail", "someone's")
        [refused] = hand_off(dramatiq_url=redis_server.url).send_many([job("dramatiq")])
        assert (refused.outcome, refused.code) == ("r", "wrong_type")
        assert client.get("dramatiq:mail") == b"someone's"
        client.delete("dramatiq:mail")
        assert client.hlen("dramatiq:mail.msgs") == 0  # else the job would be taken for one that waits


def test_a_thousand_jobs_are_one_command_for_each_queue(redis_server, hand_off):
    sender = hand_off(dramatiq_url=redis_server.url, celery_url=redis_server.url)
    jobs = [job(system) for system in ("dramatiq", "celery") for _ in range(500)]
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_resetstat()
        assert sender.send_many(jobs) == [SENT] * 1000
        calls = client.info("commandstats")
        assert (calls["cmdstat_eval"]["calls"], calls["cmdstat_lpush"]["calls"]) == (1, 1)
        ids = [one.decode() for one in client.lrange("dramatiq:mail", 0, -1)]
        assert ids == [one.uuid for one in jobs[:500]]
        assert client.llen("mail") == 500
        assert sender.send_many(jobs) == [SENT] * 1000
        # Dramatiq has one place for each id; Celery's messages have none.
        assert (client.llen("dramatiq:mail"), client.llen("mail")) == (500, 1000)


def test_celery_has_a_list_for_each_step_of_its_priorities(redis_server, hand_off):
    jobs = [job("celery", options=f'{{"queue": "mail", "priority": {priority}}}') for priority in (0, 2, 3, 9, 200)]
    assert hand_off(celery_url=redis_server.url).send_many(jobs) == [SENT] * 5
    with redis.Redis.from_url(redis_server.url) as client:
        steps = [client.llen(name) for name in ("mail", "mail\x06\x163", "mail\x06\x166", "mail\x06\x169")]
    assert steps == [2, 1, 0, 2]
