import pytest

from relay.local.servers import EmbeddedRedis
from tests.backends.harness import Harness
from tests.backends.redis.cluster import RedisCluster
from tests.backends.redis.harness import RedisClusterHarness, RedisHarness
from tests.backends.suite import SinkSuite


class TestRedis(SinkSuite):
    @pytest.fixture
    def harness(self, durable_redis: EmbeddedRedis) -> Harness:
        return RedisHarness(durable_redis)


class TestRedisExactlyOnce(
    SinkSuite,
    variant_of=TestRedis,
    because="a script on the server writes the entries, and leaves out those that are there",
    runs=[
        SinkSuite.test_bodies_arrive_unchanged,
        SinkSuite.test_keys_arrive_beside_the_body,
        SinkSuite.test_headers_arrive_beside_the_body,
        SinkSuite.test_batches_arrive_whole_and_in_order,
        SinkSuite.test_a_record_that_is_too_large_is_refused_for_good_and_its_neighbours_arrive,
        SinkSuite.test_what_is_sent_again_is_suppressed_where_promised,
        SinkSuite.test_a_backend_that_stalls_does_not_hold_the_caller_beyond_the_time_limit,
        SinkSuite.test_nothing_reported_delivered_is_missing_after_a_restart_in_mid_batch,
    ],
):
    @pytest.fixture
    def harness(self, durable_redis: EmbeddedRedis) -> Harness:
        return RedisHarness(durable_redis, exactly_once=True)


class TestRedisCluster(
    SinkSuite,
    variant_of=TestRedis,
    because="it has a connection to each node, and goes where a node says that the stream is; an entry is the same",
    runs=[
        SinkSuite.test_batches_arrive_whole_and_in_order,
        SinkSuite.test_a_record_that_is_too_large_is_refused_for_good_and_its_neighbours_arrive,
        SinkSuite.test_closing_is_harmless_at_any_time,
        SinkSuite.test_a_sink_that_is_not_open_says_so,
        SinkSuite.test_a_sink_opens_again_after_close_and_over_itself,
        SinkSuite.test_closing_leaves_no_thread_and_no_descriptor,
        SinkSuite.test_a_backend_that_stalls_does_not_hold_the_caller_beyond_the_time_limit,
        SinkSuite.test_closing_during_a_publish_ends_both,
        SinkSuite.test_a_backend_that_is_down_is_not_connected_and_works_after_reopening,
        SinkSuite.test_nothing_reported_delivered_is_missing_after_a_restart_in_mid_batch,
        SinkSuite.test_wrong_credentials_are_a_clear_error_for_a_person,
    ],
):
    @pytest.fixture
    def harness(self, redis_cluster: RedisCluster) -> Harness:
        return RedisClusterHarness(redis_cluster)
