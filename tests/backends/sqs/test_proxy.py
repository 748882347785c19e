"""SQS on a bad network."""

from collections.abc import Callable

import pytest

from tests.backends.proxy_suite import ProxySinkSuite, ProxySourceSuite
from tests.backends.sqs.harness import SqsHarness
from tests.backends.sqs.source_harness import SqsSourceHarness
from tests.services.moto import MotoServer
from tests.services.proxy import Proxy


@pytest.fixture
def troublemaker(moto_server: MotoServer, proxy: Callable[[str], Proxy]) -> Proxy:
    return proxy(moto_server.url)


class TestSqsBehindAProxy(ProxySinkSuite):
    @pytest.fixture
    def harness(self, moto_server: MotoServer, troublemaker: Proxy) -> SqsHarness:
        return SqsHarness(moto_server, troublemaker)


class TestSqsSourceBehindAProxy(ProxySourceSuite):
    @pytest.fixture
    def harness(self, moto_server: MotoServer, troublemaker: Proxy) -> SqsSourceHarness:
        return SqsSourceHarness(moto_server, troublemaker)
