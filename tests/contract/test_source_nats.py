import pytest

from tests.contract.nats_source_harness import NatsSourceHarness
from tests.contract.source_harness import SourceHarness
from tests.contract.source_suite import SourceSuite
from tests.services.nats import NatsServer


class TestNatsSource(SourceSuite):
    @pytest.fixture
    def harness(self, nats_server: NatsServer) -> SourceHarness:
        return NatsSourceHarness(nats_server)
