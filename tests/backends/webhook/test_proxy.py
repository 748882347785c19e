"""Webhooks on a bad network."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.backends.proxy_suite import ProxySinkSuite
from tests.backends.webhook.harness import WebhookHarness
from tests.services.http_receiver import HttpReceiver
from tests.services.proxy import Proxy


@pytest.fixture
def troublemaker(http_receiver: HttpReceiver, proxy: Callable[[str], Proxy]) -> Proxy:
    return proxy(http_receiver.url)


class TestWebhookBehindAProxy(ProxySinkSuite):
    @pytest.fixture
    def harness(self, http_receiver: HttpReceiver, troublemaker: Proxy) -> WebhookHarness:
        class Behind(WebhookHarness):
            def config(self) -> dict[str, Any]:
                return super().config() | {"url": troublemaker.through(self.url)}

        return Behind(http_receiver)
