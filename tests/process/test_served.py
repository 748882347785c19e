"""PostgreSQL, Redis or RabbitMQ lost under a running fleet."""

import json
from functools import partial

import pytest

from relay.broker.factory import depths, make_broker, serve
from tests.fleets.pipelines import Pipelines, Writers
from tests.fleets.processes import running_fleet
from tests.waiting import wait_until

NAMES = ["orders", "bills", "mails"]
# A drain message that was lost is missed after so long.
LEASE = {"visibility_timeout_ms": 2000}


@pytest.fixture
def busy(fleet, pipelines):
    """A fleet under load."""
    for name in NAMES:
        pipelines.make(name, **LEASE)
        pipelines.control(name, delay_ms=10)
    scheduler, _ = fleet.scheduler(), fleet.workers()
    fleet.wait_ready()
    with Writers(pipelines, NAMES, 600) as writers:
        wait_until(lambda: all(map(pipelines.delivered, NAMES)), 20, "all are busy")
        yield scheduler, writers


def finish(pipelines, writers):
    """What was published before, meanwhile and after is all delivered."""
    before = writers.published
    wait_until(lambda: writers.published > before + 300, 20, "the applications publish again")
    writers.stop()
    pipelines.wait_settled()
    verdict = pipelines.judge_all()
    assert verdict.is_right, verdict
    for outbox, ids in writers.confirmed.items():
        assert set(ids) <= set(pipelines.committed(outbox))
    return verdict


def test_redis_flushed_in_mid_flight_costs_no_more_than_a_lease(busy, pipelines, redis_server):
    _, writers = busy
    for number in range(1, 21):
        redis_server.flush()
        wait_until(partial(writers.have_published, number * 50), 10, "more is published")
    assert finish(pipelines, writers).duplicates == 0


def test_a_drain_that_redis_lost_is_missed_when_its_lease_is_over(fleet, pipelines, redis_server):
    scheduler = fleet.scheduler()
    pipelines.make("orders", **LEASE)
    ids = pipelines.publish("orders", 10)
    broker = make_broker(redis_server.url)
    identity = pipelines.run("select tide.database_identity()")[0][0]
    serve(broker, lambda: identity)
    wait_until(lambda: depths(broker)[0].messages, 20, "a drain is on the queue, and no worker is there")
    redis_server.flush()
    broker.close()
    fleet.workers()
    pipelines.wait_delivered("orders", ids)
    assert scheduler.metric("tide_relay_lost_drains_total", pipeline="orders") >= 1


def test_redis_restarted_empty_is_survived(busy, pipelines, redis_server):
    scheduler, writers = busy
    redis_server.kill()
    wait_until(lambda: scheduler.get("/ready")[0] == 503, 20, "the scheduler says that it is not ready")
    status, body = scheduler.get("/health")
    assert (status, json.loads(body)["status"]) == (200, "degraded"), "a restart would not help"
    assert "broker" in json.loads(body)["reasons"][0]
    assert redis_server.password not in body
    assert scheduler.metric("tide_relay_broker_up") == 0
    redis_server.start()
    wait_until(lambda: scheduler.get("/ready")[0] == 200, 20, "it is ready again")
    assert scheduler.metric("tide_relay_broker_up") == 1
    assert finish(pipelines, writers).duplicates == 0


def test_postgres_restarted_under_load_is_survived(busy, pipelines, postgres):
    scheduler, writers = busy
    postgres.kill()
    wait_until(lambda: scheduler.get("/ready")[0] == 503, 20, "the scheduler says that it is not ready")
    status, body = scheduler.get("/health")
    assert status == 200, "a restart would not help"
    assert "PostgreSQL" in json.loads(body)["reasons"][0]
    assert json.loads(body)["pipelines_owned"] == 0
    wait_until(lambda: scheduler.metric("tide_relay_loop_age_seconds") > 2, 20, "the loop has no answers")
    postgres.start()
    wait_until(lambda: scheduler.get("/ready")[0] == 200, 30, "it is ready again")
    finish(pipelines, writers)


def test_a_crash_of_postgres_takes_no_lease_back(fleet, pipelines, postgres):
    """A publish that began before the crash continues; no other may begin until its lease has expired."""
    scheduler, _ = fleet.scheduler(), fleet.workers()
    fleet.wait_ready()
    pipelines.make("orders", visibility_timeout_ms=8000, timeout_ms=7000)
    pipelines.wait_outcome("orders")
    pipelines.control("orders", delay_ms=6000)
    ids = pipelines.publish("orders")
    pipelines.wait_attempts("orders")
    postgres.kill()
    postgres.start()
    wait_until(lambda: scheduler.owned() == 1, 20, "the pipeline is owned again")
    pipelines.wait_delivered("orders", ids)
    pipelines.control("orders")
    pipelines.wait_settled()
    verdict = pipelines.judge("orders")
    assert verdict.is_right, verdict


def test_an_idle_fleet_delivers_soon_after_a_restart_of_postgres(fleet, pipelines, postgres):
    """No lease has to run out first: no drain uses a connection that the restart has left dead."""
    scheduler, _ = fleet.scheduler(), fleet.workers()
    for name in NAMES:
        pipelines.make(name, visibility_timeout_ms=60_000, poll_interval_ms=3_600_000)
        pipelines.wait_delivered(name, pipelines.publish(name), 30)
    asleep = """select bool_and(outcome = 'idle' and lease_until is null
                           and ended_at < clock_timestamp() - interval '0.5 s') from tide.drain"""
    wait_until(lambda: pipelines.run(asleep) == [(True,)], 20, "all have slept for a while")
    postgres.restart()
    wait_until(lambda: scheduler.owned() == 3, 20, "the pipelines are owned again")
    for name in NAMES:
        pipelines.wait_delivered(name, pipelines.publish(name), 5)


def test_rabbitmq_carries_the_drains_as_well(database, rabbitmq_server, tmp_path):
    pipelines = Pipelines(database.url, tmp_path / "delivered")
    with running_fleet(database.fleet_url(), rabbitmq_server.url, tmp_path / "fleet") as fleet:
        for name in NAMES:
            pipelines.make(name)
        fleet.scheduler()
        workers = fleet.workers()
        fleet.wait_ready()
        with Writers(pipelines, NAMES, 600) as writers:
            wait_until(lambda: writers.published > 1000, 30, "1,000 messages are published")
        pipelines.wait_settled()
        workers.terminate()
        assert workers.wait_exit() == 0
    verdict = pipelines.judge_all()
    assert verdict.is_right and verdict.duplicates == 0, verdict
