import pytest

from tests.backends.harness import Harness
from tests.backends.nats.harness import NatsHarness
from tests.backends.suite import SinkSuite
from tests.services.nats import NatsServer


class TestNats(SinkSuite):
    @pytest.fixture
    def harness(self, nats_server: NatsServer) -> Harness:
        return NatsHarness(nats_server)
