import pytest

from tests.backends.nats.source_harness import NatsSourceHarness
from tests.backends.source_harness import SourceHarness
from tests.backends.source_suite import SourceSuite
from tests.services.nats import NatsServer


class TestNatsSource(SourceSuite):
    @pytest.fixture
    def harness(self, nats_server: NatsServer) -> SourceHarness:
        return NatsSourceHarness(nats_server)
