import pytest

from relay.embedded import EmbeddedRedis
from tests.contract.redis_source_harness import RedisSourceHarness
from tests.contract.source_harness import SourceHarness
from tests.contract.source_suite import SourceSuite


class TestRedis(SourceSuite):
    @pytest.fixture
    def harness(self, durable_redis: EmbeddedRedis) -> SourceHarness:
        return RedisSourceHarness(durable_redis)
