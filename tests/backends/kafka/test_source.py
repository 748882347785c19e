from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.kafka.harness import KafkaHarness
from tests.backends.kafka.source_harness import KafkaSourceHarness
from tests.backends.source_harness import SourceHarness
from tests.backends.source_suite import SourceSuite
from tests.services.kafka import KafkaServer


@pytest.fixture(scope="module")
def _secured(run_dir: Path) -> Iterator[KafkaServer]:
    with KafkaServer(run_dir / "kafka-secured-source", secured=True) as server:
        yield server


class TestKafka(SourceSuite):
    @pytest.fixture
    def harness(self, _secured: KafkaServer) -> SourceHarness:
        return KafkaSourceHarness(KafkaHarness(_secured.start()))
