"""NATS on a bad network."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.nats_harness import NatsHarness
from tests.contract.nats_source_harness import NatsSourceHarness
from tests.contract.proxy_suite import ProxySinkSuite, ProxySourceSuite
from tests.services.nats import NatsServer
from tests.services.proxy import Proxy


@pytest.fixture
def troublemaker(nats_server: NatsServer, proxy: Callable[[str], Proxy]) -> Proxy:
    return proxy(nats_server.url)


class TestNatsBehindAProxy(ProxySinkSuite):
    @pytest.fixture
    def harness(self, nats_server: NatsServer, troublemaker: Proxy) -> NatsHarness:
        class Behind(NatsHarness):
            def config(self) -> dict[str, Any]:
                return super().config() | {"url": troublemaker.through(nats_server.url)}

        return Behind(nats_server)


class TestNatsSourceBehindAProxy(ProxySourceSuite):
    @pytest.fixture
    def harness(self, nats_server: NatsServer, troublemaker: Proxy) -> NatsSourceHarness:
        class Behind(NatsSourceHarness):
            def config(self) -> dict[str, Any]:
                return super().config() | {"url": troublemaker.through(nats_server.url)}

        return Behind(nats_server)
