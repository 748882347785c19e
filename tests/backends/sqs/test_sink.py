from collections.abc import Callable
from typing import Any

import pytest

from tests.backends.harness import Harness
from tests.backends.sqs.harness import SqsHarness
from tests.backends.suite import SinkSuite
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
            server = request.getfixturevalue("strict_moto")
            return Refusing(server, proxy(server.url))
        return SqsHarness(moto_server, proxy(moto_server.url))


class OneGroup(SqsHarness):
    """A FIFO queue, of which one group is asked to keep its order. `test_sqs_particulars.py` has several groups."""

    def config(self) -> dict[str, Any]:
        return super().config() | {"message_group_id": "{outbox}"}


class TestSqsFifo(
    SinkSuite,
    variant_of=TestSqs,
    because="a FIFO queue keeps the order of a group, and leaves out what it was sent before",
    runs=[
        SinkSuite.test_batches_arrive_whole_and_in_order,
        SinkSuite.test_what_is_sent_again_is_suppressed_where_promised,
        SinkSuite.test_a_backend_that_stalls_does_not_hold_the_caller_beyond_the_time_limit,
        SinkSuite.test_nothing_reported_delivered_is_missing_after_a_restart_in_mid_batch,
    ],
):
    @pytest.fixture
    def harness(self, moto_server: MotoServer, proxy: MakeProxy) -> Harness:
        return OneGroup(moto_server, proxy(moto_server.url), fifo=True)
