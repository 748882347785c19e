"""Servers that are configured otherwise than those of the session."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from relay.local.servers import EmbeddedRedis
from tests.backends.nats.harness import ConfiguredNats, NatsHarness
from tests.backends.redis.cluster import RedisCluster
from tests.backends.redis.server import DurableRedis
from tests.services.moto import MotoServer
from tests.services.nats import NatsServer
from tests.services.postgres import Database, PostgresServer


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process has all tests of RabbitMQ, and one those of Apache Kafka: their servers take ten times as long to
    start as any other.

    A test that gets one only by its parameter is known by its name.
    """
    for item in items:
        for server in ("rabbitmq", "apache_kafka"):
            if f"_{server}" in getattr(item, "fixturenames", ()) or f"[{server}" in item.name:
                item.add_marker(pytest.mark.xdist_group(server))


@pytest.fixture
def nats_harness(nats_server: NatsServer) -> NatsHarness:
    """A stream's name of its own on the session's server; nothing is made yet."""
    return NatsHarness(nats_server)


@pytest.fixture
def configured_nats(own_dirs: Callable[[], Path]) -> Iterator[Callable[..., NatsHarness]]:
    """Makes servers for this test alone: `configured_nats(max_payload=4096)`."""
    with ExitStack() as stack:
        yield lambda **extra: NatsHarness(stack.enter_context(ConfiguredNats(own_dirs(), **extra)))


@pytest.fixture(scope="session")
def _strict_moto(run_dir: Path) -> Iterator[MotoServer]:
    with MotoServer(run_dir / "strict-moto", authenticated=True) as server:
        yield server


@pytest.fixture
def strict_moto(_strict_moto: MotoServer) -> MotoServer:
    """Amazon's services, on a server that asks who we are. Name what you make for your test."""
    return _strict_moto.start()


@pytest.fixture(scope="session")
def _durable_redis(run_dir: Path) -> Iterator[EmbeddedRedis]:
    with DurableRedis(run_dir / "durable-redis") as server:
        yield server


@pytest.fixture
def durable_redis(_durable_redis: EmbeddedRedis) -> EmbeddedRedis:
    """Redis that keeps what it acknowledged, empty."""
    _durable_redis.start()
    _durable_redis.flush()
    return _durable_redis


@pytest.fixture(scope="session")
def _redis_cluster(run_dir: Path) -> Iterator[RedisCluster]:
    cluster = RedisCluster(run_dir / "redis-cluster")
    yield cluster
    cluster.kill()


@pytest.fixture
def redis_cluster(_redis_cluster: RedisCluster) -> RedisCluster:
    """Two primaries that keep what they acknowledged, empty."""
    _redis_cluster.start()
    _redis_cluster.flush()
    return _redis_cluster


@pytest.fixture(scope="session")
def _inbox_database(_postgres18: PostgresServer) -> Database:
    _postgres18.start()
    return _postgres18.create_database()


@pytest.fixture
def inbox_database(_inbox_database: Database, postgres: PostgresServer) -> Database:
    """A migrated database for all tests of the inbox sink: name the inbox for your test."""
    return _inbox_database
