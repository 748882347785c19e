import pytest

from tests.contract.rabbitmq_source_harness import RabbitmqSourceHarness
from tests.contract.source_harness import SourceHarness
from tests.contract.source_suite import SourceSuite
from tests.services.rabbitmq import RabbitmqServer


class TestRabbitmqSource(SourceSuite):
    @pytest.fixture
    def harness(self, rabbitmq_server: RabbitmqServer) -> SourceHarness:
        return RabbitmqSourceHarness(rabbitmq_server)
