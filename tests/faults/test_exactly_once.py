"""Short loops of `tests.faults.exactly_once`: kill -9, and every service killed and started, in mid-flow."""

import random

import pytest

from tests.backends.redis.server import DurableRedis
from tests.faults.exactly_once import POSTGRES_IS_AWAY_SECONDS, run
from tests.faults.exactly_once_flows import Services
from tests.faults.exactly_once_sinks import FORWARD
from tests.faults.exactly_once_sources import REVERSE
from tests.faults.exactly_once_tally import Ordered, Tally
from tests.fleets.processes import running_fleet


@pytest.fixture
def far(database, proxy):
    """PostgreSQL is far away: a kill often falls between a sink and the settle."""
    made = proxy(database.url)
    made.delay(POSTGRES_IS_AWAY_SECONDS)
    return made


@pytest.fixture
def fleet(database, redis_server, far, tmp_path):
    with running_fleet(far.through(database.fleet_url()), redis_server.url, tmp_path / "fleet") as fleet:
        yield fleet


@pytest.fixture
def durable_redis(own_dirs):
    with DurableRedis(own_dirs()) as server:
        yield server


@pytest.mark.timeout(240)
def test_killed_workers_neither_lose_nor_double_what_a_sink_takes_exactly_once(
    database, postgres16, kafka_server, durable_redis, moto_server, pipelines, fleet, far
):
    remote = postgres16.create_database()
    services = Services(database, remote, kafka_server, durable_redis, moto=moto_server)
    seed = random.randrange(10_000)
    outcome = run(FORWARD, services, pipelines, fleet, far, seconds=10, rate=250, seed=seed)
    postgres16.drop_database(remote)
    print(f"seed {seed}\n{outcome}")
    assert not outcome.wrong
    assert outcome.faults.total() >= 5


@pytest.mark.timeout(240)
def test_killed_workers_neither_lose_nor_double_what_sources_bring(
    database, kafka_server, durable_redis, nats_server, pipelines, fleet, far
):
    services = Services(database, kafka=kafka_server, redis=durable_redis, nats=nats_server)
    seed = random.randrange(10_000)
    outcome = run(REVERSE, services, pipelines, fleet, far, seconds=8, rate=250, seed=seed)
    print(f"seed {seed}\n{outcome}")
    assert not outcome.wrong
    assert outcome.faults.total() >= 5


def tallied(sent, arrived):
    tally = Tally()
    tally.add(Ordered("events", list(sent), list(arrived)))
    return tally


def test_a_tally_sees_what_is_missing_doubled_unknown_and_late():
    assert tallied("abcd", "abcd").is_right
    assert not tallied("", "").is_right, "nothing happened"
    assert tallied("abcd", "abd").missing == 1
    assert tallied("abcd", "abcbd").doubled == 1
    assert tallied("abcd", "abcdx").unknown == 1
    assert tallied("abcd", "acbd").reordered == 1
    assert not any(tallied("abcd", arrived).is_right for arrived in ("abd", "abcbd", "abcdx", "acbd"))
