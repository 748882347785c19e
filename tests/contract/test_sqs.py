from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.harness import Harness
from tests.contract.sqs_harness import SqsHarness
from tests.contract.suite import SinkSuite
from tests.services.moto import MotoServer
from tests.services.proxy import Proxy

MakeProxy = Callable[[str], Proxy]


class Refusing(SqsHarness):
    """On a server that asks who we are."""

    def wrong_credentials(self) -> dict[str, Any]:
        return {"secret_access_key": "wrong-secret", "access_key_id": "AKIAWRONG"}


class TestSqs(SinkSuite):
    @pytest.fixture
    def harness(self, request: pytest.FixtureRequest, moto_server: MotoServer, proxy: MakeProxy) -> Harness:
        if "credentials" in request.node.name:
            server = request.getfixturevalue("own_moto")(authenticated=True)
            return Refusing(server, proxy(server.url))
        return SqsHarness(moto_server, proxy(moto_server.url))


class OneGroup(SqsHarness):
    """A FIFO queue, of which one group is asked to keep its order. `test_sqs_particulars.py` has several groups."""

    def config(self) -> dict[str, Any]:
        return super().config() | {"message_group_id": "{outbox}"}


ABOUT_ORDER = ("in_order", "sent_again", "one_thread", "stalls", "mid_batch")


class TestSqsFifo(SinkSuite):
    @pytest.fixture
    def harness(self, moto_server: MotoServer, proxy: MakeProxy, request: pytest.FixtureRequest) -> Harness:
        if not any(word in request.node.name for word in ABOUT_ORDER):
            pytest.skip("the same for every queue: TestSqs")
        return OneGroup(moto_server, proxy(moto_server.url), fifo=True)
