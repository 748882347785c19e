from collections.abc import Iterator

import pytest

from tests.backends.rabbitmq.source_harness import RabbitmqSourceHarness
from tests.backends.source_harness import SourceHarness
from tests.backends.source_steps import Drainer, Inbox, messages, opened
from tests.backends.source_suite import SourceSuite
from tests.services.proxy import Proxy
from tests.services.rabbitmq import RabbitmqServer


@pytest.fixture(scope="module")
def proxy(_rabbitmq: RabbitmqServer) -> Iterator[Proxy]:
    with Proxy(_rabbitmq.start().url) as proxy:
        yield proxy


class TestRabbitmqSource(SourceSuite):
    @pytest.fixture
    def harness(self, rabbitmq_server: RabbitmqServer, proxy: Proxy) -> SourceHarness:
        return RabbitmqSourceHarness(rabbitmq_server, proxy)

    @pytest.fixture
    def killable(self, rabbitmq_server: RabbitmqServer) -> SourceHarness:
        return RabbitmqSourceHarness(rabbitmq_server)

    def test_nothing_is_lost_when_the_server_is_killed_in_mid_flow(self, killable: SourceHarness) -> None:
        inbox = Inbox()
        with opened(killable, timeout_ms=2000) as source, Drainer(source, inbox) as drainer:
            killable.send(messages(1, 600))
            drainer.wait_for(written=100)
            killable.stop()
            drainer.wait_for(troubles=1)
            killable.start()
            drainer.wait_for(written=600)
        assert inbox.numbers() == list(range(1, 601))
