import pytest

from tests.backends.kafka.harness import KafkaHarness
from tests.backends.kafka.source_harness import KafkaSourceHarness
from tests.backends.source_harness import SourceHarness
from tests.backends.source_suite import SourceSuite
from tests.services.apache_kafka import ApacheKafka
from tests.services.kafka import KafkaServer


class TestKafka(SourceSuite):
    @pytest.fixture
    def harness(self, secured_kafka: KafkaServer) -> SourceHarness:
        return KafkaSourceHarness(KafkaHarness(secured_kafka))


class TestApacheKafka(SourceSuite):
    @pytest.fixture
    def harness(self, apache_kafka: ApacheKafka) -> SourceHarness:
        return KafkaSourceHarness(KafkaHarness(apache_kafka))
