import pytest

from tests.backends.harness import Harness
from tests.backends.rabbitmq.harness import RabbitmqHarness
from tests.backends.suite import SinkSuite
from tests.services.rabbitmq import RabbitmqServer


class TestRabbitmq(SinkSuite):
    @pytest.fixture
    def harness(self, rabbitmq_server: RabbitmqServer) -> Harness:
        return RabbitmqHarness(rabbitmq_server)
