import pytest

from relay.local.servers import EmbeddedRedis
from tests.backends.redis.cluster import RedisCluster
from tests.backends.redis.harness import RedisClusterHarness, RedisHarness
from tests.backends.redis.source_harness import RedisSourceHarness
from tests.backends.source_harness import SourceHarness
from tests.backends.source_suite import HowLongItWaits, SourceSuite
from tests.backends.source_suite_redelivery import Trouble
from tests.backends.variants import all_of


class TestRedis(SourceSuite):
    @pytest.fixture
    def harness(self, durable_redis: EmbeddedRedis) -> SourceHarness:
        return RedisSourceHarness(RedisHarness(durable_redis))


class TestRedisCluster(
    SourceSuite,
    variant_of=TestRedis,
    because="it has a connection to each node, and goes where a node says that the stream is; an entry is the same",
    runs=[
        *all_of(HowLongItWaits),
        *all_of(Trouble),
        SourceSuite.test_batches_arrive_whole_and_in_order,
        SourceSuite.test_after_a_rest_another_worker_receives_everything_at_once,
    ],
):
    @pytest.fixture
    def harness(self, redis_cluster: RedisCluster) -> SourceHarness:
        return RedisSourceHarness(RedisClusterHarness(redis_cluster))
