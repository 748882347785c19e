import pytest

from tests.contract.harness import Harness
from tests.contract.rabbitmq_harness import RabbitmqHarness
from tests.contract.suite import SinkSuite
from tests.services.rabbitmq import RabbitmqServer


class TestRabbitmq(SinkSuite):
    @pytest.fixture
    def harness(self, rabbitmq_server: RabbitmqServer) -> Harness:
        return RabbitmqHarness(rabbitmq_server)
