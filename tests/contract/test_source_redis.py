import pytest

from relay.local.servers import EmbeddedRedis
from tests.contract.redis_cluster import RedisCluster
from tests.contract.redis_harness import RedisClusterHarness, RedisHarness
from tests.contract.redis_source_harness import RedisSourceHarness
from tests.contract.source_harness import SourceHarness
from tests.contract.source_suite import SourceSuite


class TestRedis(SourceSuite):
    @pytest.fixture
    def harness(self, durable_redis: EmbeddedRedis) -> SourceHarness:
        return RedisSourceHarness(RedisHarness(durable_redis))


class TestRedisCluster(SourceSuite):
    @pytest.fixture
    def harness(self, redis_cluster: RedisCluster) -> SourceHarness:
        return RedisSourceHarness(RedisClusterHarness(redis_cluster))
