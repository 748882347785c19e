import pytest

from tests.contract.harness import Harness
from tests.contract.nats_harness import NatsHarness
from tests.contract.suite import SinkSuite
from tests.services.nats import NatsServer


class TestNats(SinkSuite):
    @pytest.fixture
    def harness(self, nats_server: NatsServer) -> Harness:
        return NatsHarness(nats_server)
