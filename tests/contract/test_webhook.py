import pytest

from tests.contract.harness import Harness
from tests.contract.suite import SinkSuite
from tests.contract.webhook_harness import WebhookHarness
from tests.services.http_receiver import HttpReceiver


class TestWebhook(SinkSuite):
    @pytest.fixture
    def harness(self, http_receiver: HttpReceiver) -> Harness:
        return WebhookHarness(http_receiver)
