"""NATS on a bad network."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.backends.nats.harness import NatsHarness
from tests.backends.nats.source_harness import NatsSourceHarness
from tests.backends.proxy_suite import ProxySinkSuite, ProxySourceSuite
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
