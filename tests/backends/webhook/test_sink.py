import pytest

from tests.backends.harness import Harness
from tests.backends.suite import SinkSuite
from tests.backends.webhook.harness import WebhookHarness
from tests.services.http_receiver import HttpReceiver


class TestWebhook(SinkSuite):
    @pytest.fixture
    def harness(self, http_receiver: HttpReceiver) -> Harness:
        return WebhookHarness(http_receiver)
