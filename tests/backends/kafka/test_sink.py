import pytest

from tests.backends.harness import Harness
from tests.backends.kafka.harness import KafkaHarness
from tests.backends.suite import SinkSuite
from tests.services.apache_kafka import ApacheKafka
from tests.services.kafka import KafkaServer


class TestKafka(SinkSuite):
    @pytest.fixture
    def harness(self, secured_kafka: KafkaServer) -> Harness:
        return KafkaHarness(secured_kafka)


class TestKafkaTransactional(
    SinkSuite,
    variant_of=TestKafka,
    because="a batch is one transaction: it is read whole or not at all, and a producer that comes later ends it",
    runs=[
        SinkSuite.test_an_empty_batch_is_delivered_at_once,
        SinkSuite.test_batches_arrive_whole_and_in_order,
        SinkSuite.test_a_record_that_is_too_large_is_refused_for_good_and_its_neighbours_arrive,
        SinkSuite.test_what_is_sent_again_is_suppressed_where_promised,
        SinkSuite.test_a_sink_opens_again_after_close_and_over_itself,
        SinkSuite.test_closing_leaves_no_thread_and_no_descriptor,
        SinkSuite.test_a_backend_that_stalls_does_not_hold_the_caller_beyond_the_time_limit,
        SinkSuite.test_closing_during_a_publish_ends_both,
        SinkSuite.test_a_backend_that_is_down_is_not_connected_and_works_after_reopening,
        SinkSuite.test_nothing_reported_delivered_is_missing_after_a_restart_in_mid_batch,
    ],
):
    @pytest.fixture
    def harness(self, secured_kafka: KafkaServer) -> Harness:
        return KafkaHarness(secured_kafka, transactional=True)


class TestApacheKafka(SinkSuite):
    @pytest.fixture
    def harness(self, apache_kafka: ApacheKafka) -> Harness:
        return KafkaHarness(apache_kafka)


class TestApacheKafkaTransactional(
    SinkSuite,
    variant_of=TestApacheKafka,
    because="a real coordinator has transactions of its own kind; what the client does by itself is the same",
    runs=[
        SinkSuite.test_batches_arrive_whole_and_in_order,
        SinkSuite.test_a_record_that_is_too_large_is_refused_for_good_and_its_neighbours_arrive,
        SinkSuite.test_what_is_sent_again_is_suppressed_where_promised,
        SinkSuite.test_a_backend_that_stalls_does_not_hold_the_caller_beyond_the_time_limit,
        SinkSuite.test_nothing_reported_delivered_is_missing_after_a_restart_in_mid_batch,
    ],
):
    @pytest.fixture
    def harness(self, apache_kafka: ApacheKafka) -> Harness:
        return KafkaHarness(apache_kafka, transactional=True)
