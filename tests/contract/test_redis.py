import pytest

from relay.local.servers import EmbeddedRedis
from tests.contract.harness import Harness
from tests.contract.redis_cluster import RedisCluster
from tests.contract.redis_harness import RedisClusterHarness, RedisHarness
from tests.contract.suite import SinkSuite


class TestRedis(SinkSuite):
    @pytest.fixture
    def harness(self, durable_redis: EmbeddedRedis) -> Harness:
        return RedisHarness(durable_redis)


class TestRedisExactlyOnce(SinkSuite):
    @pytest.fixture
    def harness(self, durable_redis: EmbeddedRedis) -> Harness:
        return RedisHarness(durable_redis, exactly_once=True)


class TestRedisCluster(SinkSuite):
    @pytest.fixture
    def harness(self, redis_cluster: RedisCluster) -> Harness:
        return RedisClusterHarness(redis_cluster)
