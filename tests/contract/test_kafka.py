from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.harness import Harness
from tests.contract.kafka_harness import KafkaHarness
from tests.contract.suite import SinkSuite
from tests.services.kafka import KafkaServer


@pytest.fixture(scope="module")
def _secured(run_dir: Path) -> Iterator[KafkaServer]:
    with KafkaServer(run_dir / "kafka-secured", secured=True) as server:
        yield server


class TestKafka(SinkSuite):
    @pytest.fixture
    def harness(self, _secured: KafkaServer) -> Harness:
        return KafkaHarness(_secured.start())


class TestKafkaTransactional(SinkSuite):
    @pytest.fixture
    def harness(self, _secured: KafkaServer) -> Harness:
        return KafkaHarness(_secured.start(), transactional=True)
